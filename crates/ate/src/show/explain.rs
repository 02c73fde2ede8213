//! `ate explain` for people: what applies, then why, then what comes next.

use std::fmt::Write as _;

use ate_api::{
    resource::{
        Explanation, Rule,
        explanation::{Origin, Place},
    },
    time::Timestamp,
};
use serde_json::Value;

use super::{
    human::{age_of, version},
    table::Table,
};

/// Width of the words on the left.
const LABEL: usize = 12;

pub(crate) fn text(e: &Explanation, now: Timestamp) -> String {
    let mut page = Page { out: String::new(), now };
    page.head(e);
    page.class(e);
    page.config(e);
    page.start(e);
    page.places(&e.pools);
    page.next(e);
    page.changes(e);
    page.out
}

struct Page {
    out: String,
    now: Timestamp,
}

impl Page {
    fn line(&mut self, label: &str, text: &str) {
        let line = format!("{label:LABEL$}{text}");
        let _ = writeln!(self.out, "{}", line.trim_end());
    }

    fn ago(&self, at: Timestamp) -> String {
        format!("{} ago", age_of(&at.to_string(), self.now))
    }

    fn head(&mut self, e: &Explanation) {
        let phase = if e.phase.is_empty() { "being made" } else { &e.phase };
        let of = e.template.as_ref().map(|t| format!(", made from template {t}")).unwrap_or_default();
        let _ = writeln!(self.out, "{} ({phase}{of})\n", e.object);
    }

    fn class(&mut self, e: &Explanation) {
        self.line("Class", &e.class.name);
        self.line("", &format!("because {}", e.class.why));
        let template = if e.template.is_some() { "its template" } else { "it" };
        let when = e.class.at.map(|at| format!(" {}", self.ago(at))).unwrap_or_default();
        if e.class.rule != Rule::Template {
            self.line("", &format!("decided when {template} was created{when}; a later default changes nothing here"));
        }
    }

    fn config(&mut self, e: &Explanation) {
        let Some(config) = &e.config else {
            self.line("Config", "none");
            return;
        };
        self.line("Config", &config.name);
        let when = config.at.map(|at| format!(" ({})", self.ago(at))).unwrap_or_default();
        self.line("", &format!("because {}{when}", config.why));
        for (i, b) in e.binaries.iter().enumerate() {
            let label = if i == 0 { "Binaries" } else { "" };
            let digest = b.sha256.short();
            let admitted = match b.admitted_by.as_slice() {
                [] => "admitted by nothing".to_owned(),
                configs => format!("admitted by {}", configs.join(", ")),
            };
            let found = if b.phase == "Verified" { "verified on the node".to_owned() } else { b.phase.to_lowercase() };
            let what = format!("{} {}", b.name, version(&b.version));
            self.line(label, &format!("{}  sha256:{digest}…  {found}, {admitted}", what.trim_end()));
        }
        let plain = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
        let settings: Vec<_> = e.settings.iter().map(|(k, v)| format!("{k}={}", plain(v))).collect();
        if !settings.is_empty() {
            self.line("Settings", &settings.join("  "));
        }
    }

    fn start(&mut self, e: &Explanation) {
        if let Some(r) = &e.runs_on {
            let age = age_of(&r.since.to_string(), self.now);
            self.line("Runs", &format!("on worker {} of pool {} under {}, for {age}", r.worker, r.pool, r.config));
        }
        let label = if e.runs_on.is_some() { "Would start" } else { "Starts" };
        let Some(s) = &e.starts_from.snapshot else {
            self.line(label, "from its images, as there is no snapshot to start from");
            return;
        };
        let what = match e.starts_from.origin {
            Origin::Golden => "the golden snapshot",
            Origin::Snapshot | Origin::Image => "its own snapshot",
        };
        let made = self.ago(s.made);
        let holds = if s.scope == "Data" { "durable directories only" } else { "memory and files" };
        let digest = s.manifest.short();
        self.line(label, &format!("from {what} {digest} (generation {}, {holds}, made {made})", s.generation));
        if s.scope != "Data" && !s.arch.is_empty() {
            let needs = format!("a {}/{} machine with the {} CPU features of its own", s.os, s.arch, s.cpu_features);
            self.line("Needs", &needs);
        }
    }

    fn places(&mut self, places: &[Place]) {
        if places.is_empty() {
            return;
        }
        let row = |p: &Place| {
            let fits = if p.fits { "yes" } else { "no" }.to_owned();
            let free = format!("{}/{}", p.free, p.workers);
            vec![p.pool.clone(), fits, free, p.config.clone().unwrap_or_default(), p.why.clone()]
        };
        let rows: Vec<_> = places.iter().map(row).collect();
        let _ = writeln!(self.out, "\nWhere it may run:");
        for line in Table::new(vec!["POOL", "FITS", "FREE", "CONFIG", "WHY"]).print(&rows).lines() {
            let _ = writeln!(self.out, "  {line}");
        }
    }

    fn next(&mut self, e: &Explanation) {
        self.out.push('\n');
        if let Some(n) = &e.next {
            self.line("Next", &format!("worker {} of pool {}: {}", n.worker, n.pool, n.prepared));
        }
        for (i, o) in e.obstacles.iter().enumerate() {
            self.line(if i == 0 { "In the way" } else { "" }, &format!("{} ({})", o.message, o.reason));
            if !o.hint.is_empty() {
                self.line("", &format!("hint: {}", o.hint));
            }
        }
        if e.obstacles.is_empty() && e.runs_on.is_none() {
            self.line("In the way", "nothing");
        }
    }

    fn changes(&mut self, e: &Explanation) {
        if e.changes.is_empty() {
            return;
        }
        let _ = writeln!(self.out, "\nWhat would change it:");
        for c in &e.changes {
            let _ = writeln!(self.out, "  {}\n    {}", c.when, c.then);
            if !c.command.is_empty() {
                let _ = writeln!(self.out, "    $ {}", c.command);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn explanation() -> Explanation {
        serde_json::from_value(json!({
            "object": "actor/default/a", "phase": "Suspended", "template": "default/counter",
            "class": {"name": "gvisor", "rule": "builtIn", "why": "it is the built-in default", "at": "2026-01-01T00:00:00Z"},
            "config": {"name": "g@1", "rule": "snapshot", "why": "its snapshot abababababab was made under it",
                "at": "2026-01-01T00:01:00Z"},
            "settings": {"platform": "systrap", "netRaw": false},
            "binaries": [{"name": "runsc", "sha256": "cd".repeat(32), "version": "1.0 (Debian)", "phase": "Verified",
                "admittedBy": ["g@1", "g@2"]}],
            "startsFrom": {"origin": "snapshot", "snapshot": {"manifest": "ab".repeat(32), "scope": "Full", "generation": 3,
                "made": "2026-01-01T00:01:00Z", "location": "x", "os": "linux", "arch": "amd64", "cpuFeatures": 9}},
            "pools": [
                {"pool": "default/p", "fits": true, "why": "", "config": "g@1", "workers": 2, "free": 1},
                {"pool": "default/vm", "fits": false, "why": "its sandbox class is microvm, the actor's is gvisor",
                    "workers": 1, "free": 0},
            ],
            "next": {"worker": "p-1", "pool": "default/p", "prepared": "its sandbox is started already"},
            "changes": [{"when": "when it is started from its image", "then": "it runs under g@2",
                "command": "ate resume actor a --boot"}],
        }))
        .unwrap()
    }

    #[test]
    fn an_explanation_says_what_applies_and_why_and_what_comes_next() {
        let text = text(&explanation(), "2026-01-01T00:02:00Z".parse().unwrap());
        let expected = "\
actor/default/a (Suspended, made from template default/counter)

Class       gvisor
            because it is the built-in default
            decided when its template was created 2m ago; a later default changes nothing here
Config      g@1
            because its snapshot abababababab was made under it (60s ago)
Binaries    runsc 1.0  sha256:cdcdcdcdcdcd…  verified on the node, admitted by g@1, g@2
Settings    netRaw=false  platform=systrap
Starts      from its own snapshot abababababab (generation 3, memory and files, made 60s ago)
Needs       a linux/amd64 machine with the 9 CPU features of its own

Where it may run:
  POOL         FITS   FREE   CONFIG   WHY
  default/p    yes    1/2    g@1      -
  default/vm   no     0/1    -        its sandbox class is microvm, the actor's is gvisor

Next        worker p-1 of pool default/p: its sandbox is started already
In the way  nothing

What would change it:
  when it is started from its image
    it runs under g@2
    $ ate resume actor a --boot
";
        assert_eq!(text, expected);
    }

    #[test]
    fn what_stands_in_the_way_is_said_with_its_reason_and_what_to_do() {
        let mut e = explanation();
        (e.next, e.pools, e.changes) = (None, Vec::new(), Vec::new());
        e.obstacles = serde_json::from_value(json!([{"reason": "NO_SUITABLE_WORKER",
            "message": "there is no worker pool of class gvisor", "hint": "apply one"}]))
        .unwrap();
        let text = text(&e, "2026-01-01T00:02:00Z".parse().unwrap());
        let expected =
            "\nIn the way  there is no worker pool of class gvisor (NO_SUITABLE_WORKER)\n            hint: apply one\n";
        assert!(text.ends_with(expected), "{text}");
    }
}
