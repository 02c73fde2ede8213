//! A rollout for people and for programs.

use ate_api::v1::{
    Rollout,
    rollout::{Phase, Policy, template::State},
};
use serde_json::{Value, json};

use super::Table;

/// Characters of the bar in a table.
const BAR: u64 = 20;

pub(super) fn tables(rollouts: &[Rollout]) -> String {
    if rollouts.is_empty() {
        return "there was no rollout yet\n".to_owned();
    }
    let header = vec!["CLASS", "TO", "PHASE", "POLICY", "MOVED", "", "RUNNING", "AT-REST", "STARTED"];
    let rows: Vec<_> = rollouts.iter().map(row).collect();
    let mut text = Table::new(header).print(&rows);
    let templates: Vec<_> = rollouts
        .iter()
        .flat_map(|r| r.templates.iter())
        .map(|t| vec![format!("actortemplate/{}", t.name), t.from.clone(), word(t.state()).to_owned()])
        .collect();
    if !templates.is_empty() {
        text += &format!("\n{}", Table::new(vec!["TEMPLATE", "FROM", "GOLDEN"]).print(&templates));
    }
    for (rollout, why) in rollouts.iter().filter_map(|r| Some((r, r.stopped.as_ref()?))) {
        text += &format!("\nrollout/{}: {}: {} ({})\n", rollout.sandbox_class, why.object, why.message, why.reason);
        if !why.hint.is_empty() {
            text += &format!("  {}\n", why.hint);
        }
    }
    text
}

fn row(r: &Rollout) -> Vec<String> {
    vec![
        r.sandbox_class.clone(),
        r.to.clone(),
        phase(r).to_owned(),
        policy(r).to_owned(),
        format!("{}/{}", r.moved, r.total),
        bar(r),
        r.running.to_string(),
        r.at_rest.to_string(),
        r.started.clone(),
    ]
}

fn bar(r: &Rollout) -> String {
    let full = r.moved.saturating_mul(BAR).checked_div(r.total).unwrap_or(BAR).min(BAR);
    let of = |c: &str, n: u64| c.repeat(usize::try_from(n).unwrap_or_default());
    format!("[{}{}]", of("#", full), of("-", BAR - full))
}

/// In one line, for somebody who waits.
pub(super) fn state(r: &Rollout) -> String {
    let current = r.templates.iter().find(|t| matches!(t.state(), State::Building | State::Testing));
    match (r.phase(), current) {
        (Phase::Building | Phase::Testing, Some(t)) => format!("{} actortemplate/{}", phase(r), t.name),
        (Phase::Moving, _) => format!("moving, {} of {} moved, {} running", r.moved, r.total, r.running),
        _ => phase(r).to_owned(),
    }
}

pub(super) fn phase(r: &Rollout) -> &'static str {
    match r.phase() {
        Phase::Building => "building",
        Phase::Testing => "testing",
        Phase::Moving => "moving",
        Phase::Paused => "paused",
        Phase::Done => "done",
        Phase::Failed => "failed",
        Phase::Undone => "undone",
        Phase::Unspecified => "unknown",
    }
}

fn policy(r: &Rollout) -> &'static str {
    match r.policy() {
        Policy::NextResume | Policy::Unspecified => "next-resume",
        Policy::Reboot => "reboot",
        Policy::Keep => "keep",
    }
}

fn word(state: State) -> &'static str {
    match state {
        State::Waiting | State::Unspecified => "waiting",
        State::Building => "building",
        State::Testing => "testing",
        State::Passed => "passed",
        State::Failed => "failed",
    }
}

pub(super) fn document(rollouts: &[Rollout]) -> Value {
    let one = |r: &Rollout| {
        let templates = r.templates.iter().map(|t| json!({"name": t.name, "from": t.from, "state": word(t.state())}));
        let stopped = r.stopped.as_ref();
        let stopped =
            stopped.map(|s| json!({"reason": s.reason, "object": s.object, "message": s.message, "hint": s.hint}));
        json!({
            "sandboxClass": r.sandbox_class, "to": r.to, "policy": policy(r), "maxUnavailable": r.max_unavailable,
            "phase": phase(r), "started": r.started, "since": r.since, "stopped": stopped,
            "templates": templates.collect::<Vec<_>>(),
            "actors": {"total": r.total, "moved": r.moved, "running": r.running, "atRest": r.at_rest},
        })
    };
    json!({ "items": rollouts.iter().map(one).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use ate_api::v1::rollout::{Condition, Template};

    use super::*;

    fn rollout() -> Rollout {
        Rollout {
            sandbox_class: "gvisor".into(),
            to: "gvisor-default@2".into(),
            policy: Policy::Reboot.into(),
            max_unavailable: "10%".into(),
            phase: Phase::Paused.into(),
            started: "2026-01-01T00:00:00Z".into(),
            since: "2026-01-01T00:00:01Z".into(),
            stopped: Some(Condition {
                reason: "SANDBOX_FAILED".into(),
                object: "actor/default/a".into(),
                message: "it did not come up".into(),
                hint: "undo".into(),
            }),
            templates: vec![Template {
                name: "default/counter".into(),
                from: "gvisor-default@1".into(),
                state: State::Passed.into(),
            }],
            total: 200,
            moved: 50,
            running: 3,
            at_rest: 147,
        }
    }

    #[test]
    fn every_form_shows_how_far_it_is_and_why_it_does_not_go_on() {
        let text = tables(&[rollout()]);
        for word in ["50/200", "[#####---------------]", "paused", "reboot", "147", "passed", "SANDBOX_FAILED", "undo"]
        {
            assert!(text.contains(word), "{word} is not in\n{text}");
        }
        let json = document(&[rollout()]);
        assert_eq!(
            (&json["items"][0]["actors"]["atRest"], &json["items"][0]["phase"]),
            (&json!(147), &json!("paused"))
        );
        assert_eq!(json["items"][0]["stopped"]["reason"], "SANDBOX_FAILED");
    }

    #[test]
    fn with_nobody_to_move_the_bar_is_full() {
        let nobody = Rollout { total: 0, moved: 0, ..rollout() };
        assert_eq!(bar(&nobody), format!("[{}]", "#".repeat(20)));
        assert_eq!(bar(&Rollout { total: 3, moved: u64::MAX, ..rollout() }), bar(&nobody));
    }
}
