//! Templates of the example actor, as a user would write them.

use crate::counter_image;

/// A template of one container, or two.
#[derive(Debug, Clone)]
pub struct Template {
    class: Option<&'static str>,
    image: String,
    env: Vec<(String, String)>,
    /// Snapshots hold the directory `/data` and no memory.
    data: bool,
    /// A second container listens on this port.
    second: Option<u16>,
    /// Further lines of the spec, indented by two.
    lines: String,
}

impl Default for Template {
    fn default() -> Self {
        let (env, lines) = (Vec::new(), String::new());
        Template { class: None, image: counter_image(), env, data: false, second: None, lines }
    }
}

impl Template {
    pub fn class(self, class: &'static str) -> Self {
        Template { class: Some(class), ..self }
    }

    pub fn image(self, image: String) -> Self {
        Template { image, ..self }
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Scope `Data`, with the example actor's directory as a durable one.
    pub fn data(self) -> Self {
        Template { data: true, ..self }
    }

    pub fn second(self, port: u16) -> Self {
        Template { second: Some(port), ..self }
    }

    pub fn line(mut self, line: &str) -> Self {
        self.lines += &format!("  {line}\n");
        self
    }

    pub fn yaml(&self, name: &str) -> String {
        let port = self.env.iter().find(|(n, _)| n == "PORT").map_or("80", |(_, port)| port);
        let mut yaml = format!(
            "apiVersion: ate.dev/v1alpha1\nkind: ActorTemplate\nmetadata: {{name: {name}}}\nspec:\n  containers:\n{}",
            container("main", &self.image, port, &self.env, self.data)
        );
        if let Some(port) = self.second {
            let port = port.to_string();
            yaml += &container("second", &self.image, &port, &[("PORT".to_owned(), port.clone())], false);
        }
        if let Some(class) = self.class {
            yaml += &format!("  sandboxClass: {class}\n");
        }
        let scopes = if self.data { ", onPause: Data, onCommit: Data" } else { "" };
        yaml += &format!("  snapshotsConfig: {{location: default{scopes}}}\n");
        if self.data {
            yaml += "  volumes: [{name: data, durableDir: {}}]\n";
        }
        yaml + &self.lines
    }
}

fn container(name: &str, image: &str, port: &str, env: &[(String, String)], data: bool) -> String {
    let env: Vec<String> = env.iter().map(|(n, v)| format!("{{name: {n}, value: {v:?}}}")).collect();
    let mounts = if data { "    volumeMounts: [{name: data, mountPath: /data}]\n" } else { "" };
    format!(
        "  - name: {name}\n    image: {image}\n    env: [{}]\n    readyz: {{httpGet: {{path: /readyz, port: {port}}}}}\n{mounts}",
        env.join(", ")
    )
}
