//! A disk that is full, slow or read-only, at each step that writes: a typed error, the last good generation stays, and
//! everything goes on when the disk is back.

use std::{
    collections::BTreeSet,
    fs,
    time::{Duration, Instant},
};

use ate_e2e::{
    Footprint, Node, Output, RUNSC_B, Site,
    class::skipped,
    disk::{LoopDisk, ReadOnly},
    http, image, kit, runsc, until, user,
};

/// Room for the binaries, the image and the actors' state several times.
const DISK_MB: u64 = 1500;
/// What a retry in the background needs to notice that the disk is back.
const NOTICED: Duration = Duration::from_secs(120);

/// One step that writes, by command.
type Step = (&'static str, fn(&Site) -> Output);

const SUSPEND: Step = ("suspend", |site| site.ate(&["suspend", "actor", "runs"]));
const PAUSE: Step = ("pause", |site| site.ate(&["pause", "actor", "runs"]));
const CREATE: Step = ("create an actor", |site| site.ate(&["create", "actor", "new", "--template", "counter"]));
const TOKEN: Step = ("make a token", |site| site.ate(&["token", "create", "new", "--role", "viewer"]));
const REVOKE: Step =
    ("revoke a binary", |site| site.ate(&["sandbox", "revoke", &"0".repeat(64), "--reason", "a test"]));
const IMPORT: Step = ("import a binary", |site| {
    let asset = format!("runsc={}", runsc(RUNSC_B).display());
    site.ate(&["sandbox", "import", "--class", "gvisor", "--name", "other", &asset])
});
const TEMPLATE: Step = ("apply a template", |site| {
    let dir = site.machine().dir().join("image");
    let image = if dir.exists() {
        format!("oci:{}", dir.display())
    } else {
        image::configured(&dir, |c| c["Labels"] = serde_json::json!({"a": "b"}))
    };
    site.apply(&site.counter().image(image).yaml("other"))
});

/// An actor that runs and counted once, and one that counted once and sleeps.
fn site(disk: &LoopDisk) -> Site {
    let site = Site::on(Node::on(&disk.path()), &kit::GVISOR, 2).with_counter();
    for actor in ["runs", "sleeps"] {
        site.actor(actor, "counter");
        assert_eq!(site.count(actor), 1);
    }
    site.ate(&["suspend", "actor", "sleeps"]).ok();
    site
}

/// A step that must fail, with one of these reasons.
#[track_caller]
fn refused(site: &Site, (name, act): Step, reasons: &[&str]) {
    let begun = Instant::now();
    let out = act(site);
    let said = format!("{}{}", out.stdout, out.stderr);
    assert!(out.code != 0, "{name} should have failed: {said}");
    assert!(reasons.iter().any(|reason| said.contains(&format!("reason: {reason}\n"))), "{name}: {said}");
    assert!(begun.elapsed() < Duration::from_secs(90), "{name} took {:?}", begun.elapsed());
}

/// Both actors go on from where they were, and no worker is lost.
#[track_caller]
fn serves_again(site: &Site, counts: &mut [u64; 2]) {
    for (actor, count) in ["runs", "sleeps"].into_iter().zip(counts) {
        *count += 1;
        assert_eq!(site.count(actor), *count, "{actor}");
    }
    site.ate(&["suspend", "actor", "sleeps"]).ok();
    site.workers_ready(1);
}

#[test]
fn on_a_full_disk_every_step_is_refused_as_such_and_succeeds_when_there_is_room() {
    let disk = LoopDisk::new(DISK_MB);
    let mut site = site(&disk);
    let mut counts = [1, 1];
    let steps = [SUSPEND, PAUSE, CREATE, TOKEN, REVOKE, IMPORT, TEMPLATE];
    for step in steps {
        let filler = disk.fill();
        refused(&site, step, &["DISK_FULL"]);
        counts[0] += 1;
        assert_eq!(site.count("runs"), counts[0], "it runs on after a failed attempt to {}", step.0);
        fs::remove_file(filler).expect("make room");
        serves_again(&site, &mut counts);
    }
    for step in steps {
        step.1(&site).ok();
        serves_again(&site, &mut counts);
    }
    site.template_ready("other");
    let footprint = Footprint::of(site.machine());
    site.node().stop();
    assert_eq!(footprint.remains(), BTreeSet::new());
}

#[test]
fn where_a_directory_is_read_only_the_step_that_writes_there_is_refused_and_succeeds_afterwards() {
    const DISK: &[&str] = &["STORAGE_UNAVAILABLE"];
    let disk = LoopDisk::new(DISK_MB);
    let mut site = site(&disk);
    let mut counts = [1, 1];
    let steps: [(Step, &str, &[&str]); 5] = [
        (SUSPEND, "objects", DISK),
        (SUSPEND, "node/snapshots", DISK),
        (PAUSE, "node/snapshots", DISK),
        (IMPORT, "node/assets", DISK),
        (REVOKE, "node", &["UNAVAILABLE", "STORAGE_UNAVAILABLE"]),
    ];
    for (step, dir, reasons) in steps {
        let read_only = ReadOnly::over(&site.machine().data().join(dir));
        refused(&site, step, reasons);
        counts[0] += 1;
        assert_eq!(site.count("runs"), counts[0], "it runs on after a failed attempt to {}", step.0);
        drop(read_only);
        step.1(&site).ok();
        serves_again(&site, &mut counts);
    }

    // A template is taken, and says why it is not ready.
    let read_only = ReadOnly::over(&site.machine().data().join("node/images"));
    TEMPLATE.1(&site).ok();
    until("the template to say what is wrong", user::ANSWER, || {
        site.get("template", "other").to_string().contains("STORAGE_UNAVAILABLE").then_some(())
    });
    drop(read_only);
    until("the template to become ready by itself", NOTICED, || {
        (site.get("template", "other")["status"]["phase"] == "Ready").then_some(())
    });
    serves_again(&site, &mut counts);
    let footprint = Footprint::of(site.machine());
    site.node().stop();
    assert_eq!(footprint.remains(), BTreeSet::new());
}

#[test]
fn a_slow_disk_slows_down_who_writes_and_nobody_else() {
    const BYTES_PER_SECOND: u64 = 4 << 20;
    let disk = LoopDisk::new(DISK_MB);
    let mut site = site(&disk);
    site.actor("large", "counter");
    // Some 60 MB that take a quarter of a minute to write.
    assert_eq!(site.request("large", "/grow/60").status, 200);
    assert_eq!(site.count("large"), 1);
    if !disk.slow(Some(BYTES_PER_SECOND)) {
        skipped("this machine cannot limit a device (cgroup v1 blkio)");
        return;
    }
    let (mut slowest, mut asked) = (Duration::ZERO, 0);
    let (took, said) = std::thread::scope(|scope| {
        let saving = scope.spawn(|| {
            let begun = Instant::now();
            let out = site.ate(&["suspend", "actor", "large"]);
            (begun.elapsed(), out)
        });
        while !saving.is_finished() {
            let begun = Instant::now();
            let answer = http::get(site.router(), &user::host("runs"), "/", user::ANSWER).expect("an answer");
            assert_eq!(answer.status, 200, "{}", answer.body);
            slowest = slowest.max(begun.elapsed());
            asked += 1;
        }
        saving.join().expect("the command")
    });
    said.ok();
    assert!(took > Duration::from_secs(5), "the disk was not slow: {took:?}");
    assert!(slowest < Duration::from_secs(2), "a request to another actor took {slowest:?}");
    assert!(asked > 10, "{asked}");
    assert!(disk.slow(None));
    assert_eq!(site.count("large"), 2);
    assert_eq!(site.count("sleeps"), 2);
    site.node().stop();
}
