//! Templates of the example actor, as a user would write them.

use crate::counter_image;

/// A template of one container, or two.
#[derive(Debug, Clone)]
pub struct Template {
    class: Option<&'static str>,
    image: String,
    /// Of snapshots.
    location: String,
    env: Vec<(String, String)>,
    /// The directory `/data` is a durable one.
    durable: bool,
    /// Snapshots hold it and no memory.
    data: bool,
    /// A second container listens on this port.
    second: Option<u16>,
    /// What the readiness probe asks for.
    readyz: &'static str,
    /// Further lines of the spec, indented by two.
    lines: String,
}

impl Default for Template {
    fn default() -> Self {
        let (env, lines) = (Vec::new(), String::new());
        let image = counter_image();
        let location = "default".to_owned();
        Template {
            class: None,
            image,
            location,
            env,
            durable: false,
            data: false,
            second: None,
            readyz: "/readyz",
            lines,
        }
    }
}

impl Template {
    pub fn class(self, class: &'static str) -> Self {
        Template { class: Some(class), ..self }
    }

    pub fn image(self, image: String) -> Self {
        Template { image, ..self }
    }

    pub fn location(self, location: String) -> Self {
        Template { location, ..self }
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Scope `Data`, with the example actor's directory as a durable one.
    pub fn data(self) -> Self {
        Template { durable: true, data: true, ..self }
    }

    /// The same directory beside the memory.
    pub fn durable(self) -> Self {
        Template { durable: true, ..self }
    }

    pub fn second(self, port: u16) -> Self {
        Template { second: Some(port), ..self }
    }

    pub fn readyz(self, path: &'static str) -> Self {
        Template { readyz: path, ..self }
    }

    pub fn line(mut self, line: &str) -> Self {
        self.lines += &format!("  {line}\n");
        self
    }

    pub fn yaml(&self, name: &str) -> String {
        let port = self.env.iter().find(|(n, _)| n == "PORT").map_or("80", |(_, port)| port);
        let mut yaml = format!(
            "apiVersion: ate.dev/v1alpha1\nkind: ActorTemplate\nmetadata: {{name: {name}}}\nspec:\n  containers:\n{}",
            self.container("main", port, &self.env, self.durable)
        );
        if let Some(port) = self.second {
            let port = port.to_string();
            yaml += &self.container("second", &port, &[("PORT".to_owned(), port.clone())], false);
        }
        if let Some(class) = self.class {
            yaml += &format!("  sandboxClass: {class}\n");
        }
        let scopes = if self.data { ", onPause: Data, onCommit: Data" } else { "" };
        yaml += &format!("  snapshotsConfig: {{location: {}{scopes}}}\n", self.location);
        if self.durable {
            yaml += "  volumes: [{name: data, durableDir: {}}]\n";
        }
        yaml + &self.lines
    }

    fn container(&self, name: &str, port: &str, env: &[(String, String)], durable: bool) -> String {
        let env: Vec<String> = env.iter().map(|(n, v)| format!("{{name: {n}, value: {v:?}}}")).collect();
        let mounts = if durable { "    volumeMounts: [{name: data, mountPath: /data}]\n" } else { "" };
        format!(
            "  - name: {name}\n    image: {}\n    env: [{}]\n    readyz: {{httpGet: {{path: {}, port: {port}}}}}\n{mounts}",
            self.image,
            env.join(", "),
            self.readyz
        )
    }
}
