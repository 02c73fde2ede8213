//! Rules that several kinds share.

use crate::{
    name::{self, LABEL_RULE},
    resource::{Violation, template::LabelSelector, violation::quoted},
};

/// A class name. Whether such a class is registered is not asked here.
pub(super) fn class(class: &str, field: &str, v: &mut Vec<Violation>) {
    if !name::is_label(class) {
        v.push(Violation::invalid(field, format!("{} is not a class name: {LABEL_RULE}", quoted(class))));
    }
}

pub(super) fn label(text: &str, field: &str, v: &mut Vec<Violation>) {
    if !name::is_label(text) {
        v.push(Violation::invalid(field, format!("{} is not a DNS label: {LABEL_RULE}", quoted(text))));
    }
}

pub(super) fn at_most(len: usize, max: usize, field: &str, v: &mut Vec<Violation>) {
    if len > max {
        v.push(Violation::invalid(field, format!("{len} are more than the {max} allowed")));
    }
}

/// Reports every text that occurs a second time.
pub(super) fn unique<'a>(
    texts: impl Iterator<Item = &'a str>,
    field: impl Fn(usize) -> String,
    v: &mut Vec<Violation>,
) {
    let mut seen = std::collections::BTreeSet::new();
    for (i, text) in texts.enumerate() {
        if !seen.insert(text) {
            v.push(Violation::invalid(field(i), format!("{} is there twice", quoted(text))));
        }
    }
}

pub(super) fn labels<'a>(
    labels: impl IntoIterator<Item = (&'a String, &'a String)>,
    field: &str,
    v: &mut Vec<Violation>,
) {
    for (key, value) in labels {
        if !name::is_label_key(key) {
            v.push(Violation::invalid(field, format!("{} is not a label key", quoted(key))));
        }
        if !name::is_label_value(value) {
            v.push(Violation::invalid(field, format!("{} of {} is not a label value", quoted(value), quoted(key))));
        }
    }
}

pub(super) fn selector(selector: &LabelSelector, field: &str, v: &mut Vec<Violation>) {
    labels(&selector.match_labels, &format!("{field}.matchLabels"), v);
    for (i, r) in selector.match_expressions.iter().enumerate() {
        let at = format!("{field}.matchExpressions[{i}]");
        if !name::is_label_key(&r.key) {
            v.push(Violation::invalid(format!("{at}.key"), format!("{} is not a label key", quoted(&r.key))));
        }
        match r.operator.as_str() {
            "In" | "NotIn" if r.values.is_empty() => {
                v.push(Violation::invalid(format!("{at}.values"), format!("{} needs a value", r.operator)));
            }
            "Exists" | "DoesNotExist" if !r.values.is_empty() => {
                v.push(Violation::invalid(format!("{at}.values"), format!("{} takes no values", r.operator)));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => {
                let message = format!("{} is none of In, NotIn, Exists, DoesNotExist", quoted(other));
                v.push(Violation::invalid(format!("{at}.operator"), message));
            }
        }
        for value in r.values.iter().filter(|value| !name::is_label_value(value)) {
            v.push(Violation::invalid(format!("{at}.values"), format!("{} is not a label value", quoted(value))));
        }
    }
}
