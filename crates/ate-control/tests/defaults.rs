//! Defaults: the nearest word counts, there is never more than one, and what exists keeps what it has.

mod support;

use std::sync::atomic::{AtomicBool, Ordering};

use ate_api::{Reason, resource::Rule};
use serde_json::{Value, json};
use support::world::{World, atespace, of_class, options, pool, sandbox_config, template};

const ANNOTATION: &str = "ate.dev/is-default-class";

/// Classes `gvisor` and `other`, each with a default configuration and a pool, and the atespace.
async fn world() -> World {
    let w = World::empty(options()).await;
    for object in [
        sandbox_config("gvisor-default", 'a', true),
        of_class(sandbox_config("other-default", 'b', true), "other"),
        pool("pool", 1),
        of_class(pool("other-pool", 1), "other"),
        atespace("default"),
    ] {
        w.apply(object).await.unwrap();
    }
    w
}

fn annotated(mut config: Value) -> Value {
    config["metadata"]["annotations"] = json!({ ANNOTATION: "true" });
    config
}

/// The class a template got, and by which rule.
async fn class_of(w: &World, name: &str) -> (String, String) {
    let choice = w.get("ActorTemplate", name).await.unwrap()["status"]["sandboxClassChoice"].clone();
    (choice["name"].as_str().unwrap().to_owned(), choice["rule"].as_str().unwrap().to_owned())
}

/// Configurations that stand for the default class, as one list shows them.
async fn standing(w: &World) -> Vec<String> {
    let all = w.list("SandboxConfig").await;
    let stands = all.iter().filter(|c| c["metadata"]["annotations"][ANNOTATION] == "true");
    stands.map(|c| c["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

fn pair(class: &str, rule: &str) -> (String, String) {
    (class.to_owned(), rule.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_nearest_word_on_the_class_counts_and_is_recorded_with_the_template() {
    let w = world().await;
    w.apply(template("one")).await.unwrap();
    assert_eq!(class_of(&w, "one").await, pair("gvisor", "builtIn"));
    let done = w.set_default_class("other", "").await.unwrap();
    assert_eq!((done.object.unwrap().name.as_str(), done.before.as_str()), ("other-default", ""));
    w.apply(template("two")).await.unwrap();
    assert_eq!(class_of(&w, "two").await, pair("other", "clusterDefault"));
    w.set_default_class("gvisor", "default").await.unwrap();
    w.apply(template("three")).await.unwrap();
    assert_eq!(class_of(&w, "three").await, pair("gvisor", "atespaceDefault"));
    w.apply(of_class(template("four"), "other")).await.unwrap();
    assert_eq!(class_of(&w, "four").await, pair("other", "template"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_default_changes_no_template_actor_or_snapshot_not_even_after_a_restart() {
    let w = world().await;
    w.apply(template("counter")).await.unwrap();
    w.template_ready("counter").await;
    w.create("a").await.unwrap();
    w.resume("a").await.unwrap();
    w.suspend("a").await.unwrap();
    let before = w.get("ActorTemplate", "counter").await.unwrap();

    w.set_default_class("other", "").await.unwrap();
    let w = w.restart().await;
    assert_eq!(w.get("ActorTemplate", "counter").await.unwrap(), before);
    assert_eq!(standing(&w).await, ["other-default"]);
    // Applied once more, by somebody to whom the default means the other class now: still nothing.
    w.apply(template("counter")).await.unwrap();
    w.create("b").await.unwrap();
    for name in ["a", "b"] {
        w.resume(name).await.unwrap();
        let actor = w.get("Actor", name).await.unwrap();
        assert_eq!(actor["status"]["sandboxClass"], "gvisor", "{name}");
        assert_eq!(actor["status"]["sandboxConfig"], "gvisor-default@1", "{name}");
        w.suspend(name).await.unwrap();
    }
    w.apply(template("later")).await.unwrap();
    assert_eq!(class_of(&w, "later").await, pair("other", "clusterDefault"));
    let e = w.explain("ActorTemplate", "counter").await.unwrap();
    assert_eq!((e.class.name.as_str(), e.class.rule), ("gvisor", Rule::BuiltIn));
    assert!(e.changes.iter().any(|c| c.then.contains("this one keeps gvisor")), "{:?}", e.changes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_many_change_the_default_there_is_always_exactly_one() {
    let w = world().await;
    w.set_default_class("gvisor", "").await.unwrap();
    let done = AtomicBool::new(false);
    let change = async {
        for class in ["other", "gvisor"].repeat(6) {
            let again = w.set_default_class(class, "");
            let (one, two) = tokio::join!(again, w.set_default_class("other", ""));
            one.unwrap();
            two.unwrap();
        }
        done.store(true, Ordering::Relaxed);
    };
    let look = async {
        let mut seen = 0;
        while !done.load(Ordering::Relaxed) {
            assert_eq!(standing(&w).await.len(), 1);
            seen += 1;
        }
        assert!(seen > 0);
    };
    let create = async {
        for i in 0..12 {
            let name = format!("t{i}");
            w.apply(template(&name)).await.unwrap();
            assert_eq!(class_of(&w, &name).await.1, "clusterDefault");
        }
    };
    tokio::join!(change, look, create);
    w.set_default_class("gvisor", "").await.unwrap();
    assert_eq!(standing(&w).await, ["gvisor-default"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_annotation_counts_and_the_one_before_says_so() {
    let w = world().await;
    w.apply(annotated(sandbox_config("gvisor-default", 'a', true))).await.unwrap();
    // It takes both at once from two different ones, in one write.
    w.apply(annotated(of_class(sandbox_config("other-new", 'c', true), "other"))).await.unwrap();
    assert_eq!(standing(&w).await, ["other-new"]);
    let old = w.get("SandboxConfig", "gvisor-default").await.unwrap();
    let condition = |config: &Value, name: &str| {
        let conditions = config["status"]["conditions"].as_array().unwrap().clone();
        conditions.into_iter().find(|c| c["type"] == name).unwrap_or_default()
    };
    let told = condition(&old, "DefaultClass");
    assert_eq!((&told["status"], &told["reason"]), (&json!("False"), &json!("Displaced")));
    assert!(told["message"].as_str().unwrap().contains("other-new"), "{told}");
    let new = w.get("SandboxConfig", "other-new").await.unwrap();
    assert_eq!(condition(&new, "DefaultClass")["reason"], "Newest");
    assert_eq!(condition(&new, "Default")["reason"], "Newest");
    assert!(w.get("SandboxConfig", "other-default").await.unwrap()["spec"]["default"].is_null());

    // Whoever stands for the default takes it along.
    w.apply(of_class(pool("other-pool", 0), "other")).await.unwrap();
    w.set_default_config("other-default").await.unwrap();
    w.delete("SandboxConfig", "other-new").await.unwrap();
    w.apply(template("t")).await.unwrap();
    assert_eq!(class_of(&w, "t").await, pair("gvisor", "builtIn"));
    // Without the annotation it is given up likewise.
    w.set_default_class("other", "").await.unwrap();
    w.apply(of_class(sandbox_config("other-default", 'b', true), "other")).await.unwrap();
    w.apply(template("u")).await.unwrap();
    assert_eq!(class_of(&w, "u").await, pair("gvisor", "builtIn"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_not_be_a_default_is_refused_with_the_reason() {
    let w = World::empty(options()).await;
    w.apply(sandbox_config("one", 'a', false)).await.unwrap();
    for (class, atespace, reason) in [
        ("gvisor", "", Reason::NoSandboxConfig),
        ("nosuch", "", Reason::UnknownSandboxClass),
        ("open", "", Reason::NotASandbox),
        ("gvisor", "nosuch", Reason::NotFound),
    ] {
        assert_eq!(w.set_default_class(class, atespace).await.unwrap_err().reason, reason, "{class} {atespace}");
    }
    w.apply(atespace("default")).await.unwrap();
    assert_eq!(w.set_default_class("open", "default").await.unwrap_err().reason, Reason::NotASandbox);
    assert_eq!(w.set_default_config("nosuch").await.unwrap_err().reason, Reason::NotFound);
    let mut open = of_class(sandbox_config("open", 'a', false), "open");
    open["spec"]["assets"] = json!({});
    assert_eq!(w.apply(annotated(open.clone())).await.unwrap_err().reason, Reason::NotASandbox);
    w.apply(open).await.unwrap();
    assert_eq!(w.set_default_config("open").await.unwrap_err().reason, Reason::NotASandbox);

    w.set_default_config("one").await.unwrap();
    w.set_default_class("gvisor", "").await.unwrap();
    assert_eq!(standing(&w).await, ["one"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_command_makes_another_configuration_the_default_and_pools_follow() {
    let w = World::ready(options(), 1).await;
    w.apply(sandbox_config("gvisor-next", 'b', false)).await.unwrap();
    let done = w.set_default_config("gvisor-next").await.unwrap();
    assert_eq!(done.before, "gvisor-default");
    assert_eq!(w.set_default_config("gvisor-next").await.unwrap().before, "gvisor-next");
    w.pool_runs("gvisor-next@1").await;
    // The flag makes no new revision: nothing would run differently.
    assert_eq!(w.get("SandboxConfig", "gvisor-default").await.unwrap()["status"]["revision"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_default_class_can_be_given_up_again() {
    let w = World::ready(options(), 1).await;
    assert_eq!(w.set_default_class("", "").await.unwrap().before, "", "there was none");
    w.set_default_class("gvisor", "").await.unwrap();
    w.set_default_class("gvisor", "default").await.unwrap();
    assert_eq!(w.set_default_class("", "default").await.unwrap().before, "gvisor");
    assert!(w.get("Atespace", "default").await.unwrap()["spec"]["defaultSandboxClass"].is_null());
    assert_eq!(w.set_default_class("", "").await.unwrap().before, "gvisor");
    assert!(standing(&w).await.is_empty());
    assert_eq!(w.set_default_class("", "nowhere").await.unwrap_err().reason, Reason::NotFound);
}
