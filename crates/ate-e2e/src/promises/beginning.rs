//! How actors begin, and what is refused before anything starts.

use crate::{
    Class, Kit, Site, image, kit, until,
    user::{ANSWER, counted},
};

use super::word;

pub fn actors_begin_from_the_golden_snapshot_of_their_template(kit: &'static Kit) {
    let site = Site::start(kit, 1).with_counter();
    let snapshots = site.list("snapshots");
    let golden = snapshots.iter().find(|s| s["spec"]["golden"] == true).unwrap_or_else(|| panic!("{snapshots:#?}"));
    assert_eq!(golden["spec"]["sandboxClass"], kit.class, "{golden:#}");
    let config = golden["spec"]["sandboxConfig"].as_str().and_then(|config| config.split_once('@'));
    let revision = config.filter(|(name, _)| *name == site.config()).map(|(_, revision)| revision.parse());
    assert!(matches!(revision, Some(Ok(1_u32..))), "{golden:#}");
    let full = site.can("snapshot.full");
    assert_eq!(golden["spec"]["scope"], if full { "Full" } else { "Data" }, "{golden:#}");
    let boots = ["a", "b"].map(|name| {
        site.actor(name, "counter");
        let answer = site.request(name, "/").body;
        assert_eq!(counted(&answer), Some(1), "{answer}");
        word(&answer, "boot")
    });
    assert_eq!(boots[0] == boots[1], full, "with memory, all began as the same process: {boots:?}");
}

pub fn the_image_says_what_runs_as_whom_and_where(kit: &'static Kit) {
    let site = Site::start(kit, 1);
    let image = image::configured(&site.machine().dir().join("image"), |config| {
        config["Entrypoint"] = serde_json::json!(["/counter", "from-the-image"]);
        config["Cmd"] = serde_json::json!(["its", "command"]);
        config["User"] = "1234:5678".into();
        config["WorkingDir"] = "/tmp".into();
        config["Env"] = serde_json::json!(["OF_THE_IMAGE=1", "CHANGED=by the image"]);
    });
    let template = site.counter().image(image).env("PORT", "8080").env("CHANGED", "by the template");
    site.ready("image", &template);
    site.actor("a", "image");
    let about = site.request("a", "/about").body;
    for line in [
        "arg /counter",
        "arg from-the-image",
        "arg its",
        "arg command",
        "cwd /tmp",
        "uid: 1234",
        "gid: 5678",
        "env OF_THE_IMAGE=1",
        "env CHANGED=by the template",
    ] {
        assert!(about.lines().any(|l| l == line), "`{line}` is not in\n{about}");
    }
}

pub fn what_a_class_does_not_report_it_refuses_before_anything_starts(kit: &'static Kit) {
    let site = Site::start(kit, 1);
    let templates = [
        ("snapshot.full", site.plain()),
        ("snapshot.data", site.plain().data()),
        ("snapshot.multi-container", site.counter().second(8081)),
    ];
    for (word, template) in templates {
        if site.can(word) {
            continue;
        }
        let said = site.apply(&template.yaml("greedy")).refused();
        assert!(said.contains("MISSING_CAPABILITY") && said.contains(word), "{word}: {said}");
        assert!(site.list("templates").is_empty());
    }
}

pub fn an_actor_never_lands_on_a_pool_of_another_class(kit: &'static Kit) {
    let other = if kit.class == kit::PROCESS.class { &kit::GVISOR } else { &kit::PROCESS };
    let site = Site::start(other, 1);
    let class = Class::admitted(site.machine(), kit);
    site.apply(&class.counter().yaml("counter")).ok();
    let why = until("the template to say what it waits for", ANSWER, || {
        let conditions = site.get("template", "counter")["status"]["conditions"].to_string();
        conditions.contains("NoSuitableWorker").then_some(conditions)
    });
    assert!(why.contains(&format!("its sandbox class is {}", other.class)), "{why}");
    site.workers_ready(1);

    class.add_pool(site.machine(), 1);
    site.template_ready("counter");
    site.actor("a", "counter");
    assert_eq!(site.count("a"), 1);
    let workers = site.list("workers");
    let seat = workers.iter().find(|w| w["status"]["actor"] == "default/a").unwrap_or_else(|| panic!("{workers:#?}"));
    assert_eq!(seat["spec"]["sandboxClass"], kit.class, "{seat:#}");
}
