//! Good and bad objects: what one machine and Kubernetes must say the same of.

use serde_json::{Value, json};

/// A valid object, changed in places.
pub struct Case {
    pub what: String,
    pub object: Value,
    pub good: bool,
}

/// Of an object that exists: what it becomes.
pub struct Edit {
    pub what: &'static str,
    pub before: Value,
    pub after: Value,
    pub good: bool,
}

const DIGEST: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn object(kind: &str, spec: Value) -> Value {
    let mut metadata = json!({"name": kind.to_lowercase()});
    if kind != "SandboxConfig" {
        metadata["namespace"] = "default".into();
    }
    json!({"apiVersion": "ate.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec})
}

/// With every field that users of the reference write.
pub fn template() -> Value {
    object(
        "ActorTemplate",
        json!({
            "pauseImage": format!("registry.example/pause@sha256:{DIGEST}"),
            "containers": [{
                "name": "app",
                "image": format!("registry.example/team/app@sha256:{DIGEST}"),
                "command": ["/app", "--port=80"],
                "env": [
                    {"name": "MODE", "value": "fast"},
                    {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "tokens", "key": "app.token", "optional": true}}},
                ],
                "readyz": {"httpGet": {"path": "/readyz", "port": 80}},
                "volumeMounts": [{"name": "data", "mountPath": "/var/data"}],
            }],
            "snapshotsConfig": {"location": "gs://snapshots/team", "onPause": "Full", "onCommit": "Data"},
            "sandboxClass": "gvisor",
            "workerSelector": {
                "matchLabels": {"ate.dev/worker-pool": "pool", "tier": "a"},
                "matchExpressions": [
                    {"key": "zone", "operator": "In", "values": ["a", "b"]},
                    {"key": "example.com/spot", "operator": "DoesNotExist"},
                ],
            },
            "volumes": [{"name": "data", "durableDir": {}}],
        }),
    )
}

pub fn pool() -> Value {
    object(
        "WorkerPool",
        json!({
            "replicas": 3,
            "ateomImage": "registry.example/ateom-gvisor:v1",
            "sandboxClass": "gvisor",
            "sandboxConfigName": "gvisor-default",
            "template": {
                "nodeSelector": {"disk": "ssd"},
                "tolerations": [{"key": "ate.dev/sandboxClass", "operator": "Equal", "value": "microvm", "effect": "NoSchedule"}],
                "priorityClassName": "high",
                "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                    {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]},
                ]}},
                "resources": {"requests": {"cpu": "1", "memory": "2Gi"}, "limits": {"memory": 4_000_000_000_i64}},
            },
        }),
    )
}

pub fn config() -> Value {
    object(
        "SandboxConfig",
        json!({
            "sandboxClass": "gvisor",
            "default": true,
            "assets": {ate_sandbox::host::arch(): {"runsc": {"url": "https://binaries.example/runsc", "sha256": DIGEST}}},
        }),
    )
}

/// A configuration of the class that has settings and several assets.
fn machine() -> Value {
    let asset = |name: &str| json!({"url": format!("s3://binaries/{name}"), "sha256": DIGEST});
    object(
        "SandboxConfig",
        json!({
            "sandboxClass": "microvm",
            "assets": {ate_sandbox::host::arch(): {
                "vmm": asset("vmm"), "kernel": asset("kernel"), "initrd": asset("initrd"),
            }},
            "config": {"memoryMiB": 256, "accelerator": "tcg"},
        }),
    )
}

/// Puts a value at a JSON pointer, or takes away what is there.
fn changed(mut object: Value, pointer: &str, value: Option<Value>) -> Value {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let place = object.pointer_mut(parent).unwrap_or_else(|| panic!("{pointer} is nowhere"));
    let key = key.replace("~1", "/");
    match (place, value) {
        (Value::Array(items), Some(value)) => items.push(value),
        (Value::Array(items), None) => drop(items.remove(key.parse().unwrap())),
        (place, Some(value)) => place[key] = value,
        (Value::Object(map), None) => drop(map.remove(&key).unwrap_or_else(|| panic!("{pointer} is not there"))),
        _ => panic!("{pointer} cannot be taken away"),
    }
    object
}

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, base, changes) in [
        ("template", template(), template_changes()),
        ("pool", pool(), pool_changes()),
        ("config", config(), config_changes()),
        ("machine", machine(), machine_changes()),
    ] {
        cases.push(Case { what: format!("{name} as it is"), object: base.clone(), good: true });
        for (pointer, value, good) in changes {
            let shown: String = value.as_ref().map_or("nothing".into(), |v| v.to_string().chars().take(80).collect());
            let object = changed(base.clone(), pointer, value);
            cases.push(Case { what: format!("{name} with {pointer} = {shown}"), object, good });
        }
    }
    cases
}

type Change = (&'static str, Option<Value>, bool);

fn good(pointer: &'static str, values: impl IntoIterator<Item = Value>) -> Vec<Change> {
    values.into_iter().map(|v| (pointer, Some(v), true)).collect()
}

fn bad(pointer: &'static str, values: impl IntoIterator<Item = Value>) -> Vec<Change> {
    values.into_iter().map(|v| (pointer, Some(v), false)).collect()
}

fn without(pointers: &[&'static str], good: bool) -> Vec<Change> {
    pointers.iter().map(|p| (*p, None, good)).collect()
}

fn text(length: usize) -> String {
    "x".repeat(length)
}

fn template_changes() -> Vec<Change> {
    let container = |name: &str| json!({"name": name, "image": "web:v1"});
    [
        without(&["/spec/pauseImage", "/spec/sandboxClass", "/spec/workerSelector"], true),
        without(&["/spec/containers/0/command", "/spec/containers/0/readyz", "/spec/containers/0/env"], true),
        without(&["/spec/containers/0/readyz/httpGet/path"], true),
        without(
            &["/spec/containers", "/spec/containers/0", "/spec/containers/0/name", "/spec/containers/0/image"],
            false,
        ),
        without(&["/spec/snapshotsConfig", "/spec/snapshotsConfig/location", "/spec"], false),
        without(&["/spec/containers/0/readyz/httpGet/port", "/spec/containers/0/readyz/httpGet"], false),
        // The mount would have no volume.
        without(&["/spec/volumes", "/spec/volumes/0", "/spec/volumes/0/durableDir", "/spec/volumes/0/name"], false),
        bad("/spec/pauseImage", [json!("pause:v1"), json!("")]),
        good("/spec/containers/0/name", [json!("a"), json!("a-1"), json!(text(63))]),
        bad("/spec/containers/0/name", [json!(""), json!("A"), json!("a."), json!("-a"), json!(text(64)), json!(1)]),
        good(
            "/spec/containers/0/image",
            ["a@sha256:00", "web:v1", "h:5000/web:v1.2_3-x", "oci:/srv/web", "docker-archive:/srv/web.tar:web:v1"]
                .map(Value::from),
        ),
        bad(
            "/spec/containers/0/image",
            ["", "busybox", "h:5000/web", "web:", "/web:v1", "a//b:v1", "we b:v1", "oci:images/web", "oci:", "web\n@x"]
                .map(Value::from),
        ),
        bad("/spec/containers/-", [container("app"), json!({"name": "b"}), json!({"image": "b:1"}), json!("b")]),
        good("/spec/containers/-", [container("other")]),
        bad("/spec/containers", [json!((0..11).map(|i| container(&format!("c{i}"))).collect::<Vec<_>>()), json!([])]),
        good("/spec/containers/0/command", [json!([""]), json!(vec!["x"; 64])]),
        bad("/spec/containers/0/command", [json!(vec!["x"; 65]), json!("x"), json!([1])]),
        good("/spec/containers/0/env/-", [json!({"name": "a b", "value": ""}), json!({"name": "MODE", "value": "x"})]),
        bad(
            "/spec/containers/0/env/-",
            [
                json!({"name": "A"}),
                json!({"name": "", "value": "x"}),
                json!({"name": "A=B", "value": "x"}),
                json!({"name": "Ä", "value": "x"}),
                json!({"value": "x"}),
                json!({"name": "A", "value": "x", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}),
                json!({"name": "A", "valueFrom": {}}),
                json!({"name": "A", "valueFrom": {"secretKeyRef": {"name": "s"}}}),
                json!({"name": "A", "valueFrom": {"secretKeyRef": {"name": "S", "key": "k"}}}),
                json!({"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "a/b"}}}),
                json!({"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": ""}}}),
                json!({"name": "A", "valueFrom": {"configMapKeyRef": {"name": "s", "key": "k"}}}),
            ],
        ),
        bad("/spec/containers/0/env", [json!(vec![json!({"name": "A", "value": "x"}); 33])]),
        good("/spec/containers/0/readyz/httpGet/path", ["/", "/a/b", "/a%20b", "/a;b=c,d"].map(Value::from)),
        bad(
            "/spec/containers/0/readyz/httpGet/path",
            [
                json!(""),
                json!("a"),
                json!("/a?b"),
                json!("/a#b"),
                json!("/a b"),
                json!("/a%2"),
                json!(format!("/{}", text(1024))),
            ],
        ),
        good("/spec/containers/0/readyz/httpGet/port", [json!(1), json!(65535)]),
        bad("/spec/containers/0/readyz/httpGet/port", [json!(0), json!(65536), json!("80"), json!(-1)]),
        good("/spec/containers/0/volumeMounts/0/mountPath", ["/a", "/a.b/..c", "/a/b c"].map(Value::from)),
        bad(
            "/spec/containers/0/volumeMounts/0/mountPath",
            ["/", "a", "", "/a/", "/a//b", "/a/./b", "/a/..", "/..", "/a:b", "/a\tb"].map(Value::from),
        ),
        bad("/spec/containers/0/volumeMounts/0/name", [json!("other"), json!("Data")]),
        bad(
            "/spec/containers/0/volumeMounts/-",
            [
                json!({"name": "data", "mountPath": "/other"}),
                json!({"name": "data", "mountPath": "/var/data"}),
                json!({"name": "none", "mountPath": "/other"}),
            ],
        ),
        bad(
            "/spec/volumes/-",
            [json!({"name": "more", "durableDir": {}}), json!({"name": "data"}), json!({"name": "x"})],
        ),
        bad("/spec/volumes/0/durableDir", [json!({"size": "1Gi"}), json!("x")]),
        good(
            "/spec/snapshotsConfig",
            [json!({"location": "default"}), json!({"location": "x", "onPause": "Data", "onCommit": "Data"})],
        ),
        bad(
            "/spec/snapshotsConfig",
            [
                json!({"location": ""}),
                json!({"location": "x", "onPause": "Data"}),
                json!({"location": "x", "onPause": "Data", "onCommit": "Full"}),
                json!({"location": "x", "onPause": "Some"}),
                json!({"location": "x", "onResume": "Full"}),
            ],
        ),
        bad("/spec/sandboxClass", [json!(""), json!("gVisor"), json!(1)]),
        good("/spec/workerSelector", [json!({}), json!({"matchLabels": {}}), json!({"matchLabels": {"a": ""}})]),
        bad(
            "/spec/workerSelector",
            [
                json!({"matchLabels": {"-a": "x"}}),
                json!({"matchLabels": {"a/b/c": "x"}}),
                json!({"matchLabels": {"A.dev/x": "x"}}),
                json!({"matchLabels": {text(64): "x"}}),
                json!({"matchLabels": {"a": "-x"}}),
                json!({"matchLabels": {"a": text(64)}}),
                json!({"matchLabels": {"a": 1}}),
                json!({"matchExpressions": [{"key": "a", "operator": "In"}]}),
                json!({"matchExpressions": [{"key": "a", "operator": "In", "values": []}]}),
                json!({"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["x"]}]}),
                json!({"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["1"]}]}),
                json!({"matchExpressions": [{"key": "a b", "operator": "Exists"}]}),
                json!({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["x y"]}]}),
                json!({"matchExpressions": [{"operator": "Exists"}]}),
            ],
        ),
        good("/spec/idleTimeout", ["0", "0s", "90s", "15m", "1h30m", "1.5h", ".5s", "500ms", "8784h"].map(Value::from)),
        bad("/spec/idleTimeout", ["", "5", "-5s", "1x", "1 s", "8785h", "1.2.3s", "s", "00"].map(Value::from)),
        bad("/spec/unknown", [json!(1)]),
        bad("/spec/containers/0/ports", [json!([])]),
        // What is null was not given.
        good("/spec/idleTimeout", [Value::Null]),
        good("/spec/workerSelector", [Value::Null]),
        good("/spec/containers/0/command", [Value::Null]),
        good("/spec/containers/0/readyz", [Value::Null]),
        bad("/spec/containers", [Value::Null]),
    ]
    .concat()
}

fn pool_changes() -> Vec<Change> {
    [
        without(&["/spec/sandboxClass", "/spec/sandboxConfigName", "/spec/template", "/spec/template/resources"], true),
        without(&["/spec/replicas", "/spec/ateomImage", "/spec"], false),
        good("/spec/replicas", [json!(0), json!(1000)]),
        bad("/spec/replicas", [json!(-1), json!("3"), json!(1.5), json!(3_000_000_000_u64), Value::Null]),
        bad("/spec/ateomImage", [json!("")]),
        bad("/spec/sandboxClass", [json!("G"), json!(""), json!(text(64))]),
        good("/spec/sandboxConfigName", [json!("a"), json!("")]),
        good("/spec/template/tolerations", [json!([]), json!(vec![json!({"operator": "Exists"}); 16])]),
        bad("/spec/template/tolerations", [json!(vec![json!({"operator": "Exists"}); 17]), json!(["x"]), json!({})]),
        bad("/spec/template/nodeSelector", [json!({"a": 1}), json!("x")]),
        bad("/spec/template/nodeAffinity", [json!("x"), json!([])]),
        bad("/spec/template/resources", [json!("x")]),
        bad("/spec/template/hostNetwork", [json!(true)]),
        bad("/spec/image", [json!("x")]),
        good("/spec/template", [Value::Null, json!({})]),
    ]
    .concat()
}

fn config_changes() -> Vec<Change> {
    let arch = ate_sandbox::host::arch();
    let assets = move |asset: Value| json!({arch: {"runsc": asset}});
    let url = move |url: &str| assets(json!({"url": url, "sha256": DIGEST}));
    [
        without(&["/spec/default", "/spec/sandboxClass"], true),
        without(&["/spec/assets", "/spec"], false),
        bad("/spec/sandboxClass", [json!(""), json!("G"), json!("microvm")]),
        bad("/spec/default", [json!("true")]),
        good("/spec/default", [json!(false), Value::Null]),
        good(
            "/spec/assets",
            [url("file:///opt/runsc"), url("http://h/x"), url("https://h:8443/x?y=1"), url("gs://b/a/b"), url("HTTPS://h/x")],
        ),
        bad(
            "/spec/assets",
            [
                url(""),
                url("/usr/bin/runsc"),
                url("ftp://h/x"),
                url("file://host/x"),
                url("file:///"),
                url("https://user:secret@h/x"),
                url("s3:///key"),
                url("s3://bucket"),
                url("s3://bucket/"),
                url(&format!("https://h/{}", text(4096))),
            ],
        ),
        good("/spec/assets", [assets(json!({"url": "http://h/x", "sha256": DIGEST, "size": 1, "mediaType": "application/octet-stream"}))]),
        bad(
            "/spec/assets",
            [
                json!({}),
                json!({arch: {}}),
                json!({arch: {"kernel": {"url": "http://h/x", "sha256": DIGEST}}}),
                json!({arch: {"runsc": {"url": "http://h/x", "sha256": DIGEST}, "more": {"url": "http://h/x", "sha256": DIGEST}}}),
                json!({arch: {"runsc": {"url": "http://h/x", "sha256": DIGEST}}, "Risc V": {"runsc": {"url": "http://h/x", "sha256": DIGEST}}}),
                json!({arch: {"runsc": {"url": "http://h/x", "sha256": DIGEST}}, "riscv64": {}}),
                assets(json!({"sha256": DIGEST})),
                assets(json!({"url": "http://h/x"})),
                assets(json!({"url": "http://h/x", "sha256": "abc"})),
                assets(json!({"url": "http://h/x", "sha256": DIGEST.to_uppercase()})),
                assets(json!({"url": "http://h/x", "sha256": DIGEST, "size": 0})),
                assets(json!({"url": "http://h/x", "sha256": DIGEST, "size": -1})),
                assets(json!({"url": "http://h/x", "sha256": DIGEST, "mediaType": "text/plain"})),
                assets(json!({"url": "http://h/x", "sha256": DIGEST, "mode": 493})),
            ],
        ),
        good("/spec/config", [json!({"platform": "systrap", "directfs": false}), json!({})]),
        bad(
            "/spec/config",
            [json!({"platform": "xen"}), json!({"directfs": "yes"}), json!({"unknown": 1}), json!({"platform": null}), json!([])],
        ),
        bad("/spec/verification", [json!({"publicKeys": vec![text(8); 17]}), json!({"keys": []})]),
        good("/spec/verification", [Value::Null]),
    ]
    .concat()
}

fn machine_changes() -> Vec<Change> {
    [
        without(&["/spec/config"], true),
        good("/spec/config", [json!({"memoryMiB": 128})]),
        bad(
            "/spec/config",
            [
                json!({"memoryMiB": 1}),
                json!({"memoryMiB": "256"}),
                json!({"memoryMiB": 256.5}),
                json!({"platform": "kvm"}),
            ],
        ),
        bad("/spec/sandboxClass", [json!("gvisor")]),
    ]
    .concat()
}

pub fn edits() -> Vec<Edit> {
    let edit = |what, before: Value, pointer: &str, value: Option<Value>, good| {
        let after = changed(before.clone(), pointer, value);
        Edit { what, before, after, good }
    };
    vec![
        edit("a template's image", template(), "/spec/containers/0/image", Some("web:v2".into()), false),
        edit("a template's class, taken away", template(), "/spec/sandboxClass", None, false),
        edit("a template's labels", template(), "/metadata/labels", Some(json!({"team": "a"})), true),
        edit("a pool's replicas", pool(), "/spec/replicas", Some(json!(7)), true),
        edit("a pool's image", pool(), "/spec/ateomImage", Some("other:v2".into()), true),
        edit("a pool's replicas, to less than none", pool(), "/spec/replicas", Some(json!(-7)), false),
        edit("a configuration's default", config(), "/spec/default", Some(json!(false)), true),
        edit("a configuration's class", config(), "/spec", Some(machine()["spec"].clone()), false),
    ]
}
