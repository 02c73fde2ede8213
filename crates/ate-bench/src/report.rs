//! Samples in, figures out: one table for people, one JSON array for machines.

use std::{fs, path::Path};

use anyhow::Context as _;
use comfy_table::{Cell, CellAlignment, Table, presets};
use serde::Serialize;

/// Which side of the goal is good.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Goal {
    AtMost(f64),
    AtLeast(f64),
    /// Shown for reference.
    None,
}

impl Goal {
    fn met(self, value: f64) -> Option<bool> {
        match self {
            Goal::AtMost(g) => Some(value <= g),
            Goal::AtLeast(g) => Some(value >= g),
            Goal::None => None,
        }
    }

    fn text(self) -> String {
        match self {
            Goal::AtMost(g) => format!("≤ {g}"),
            Goal::AtLeast(g) => format!("≥ {g}"),
            Goal::None => String::new(),
        }
    }
}

/// One line of the report.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) unit: String,
    pub(crate) goal: Option<String>,
    pub(crate) met: Option<bool>,
    pub(crate) samples: usize,
    /// p10–p90 of what the value was computed from, in words.
    pub(crate) spread: String,
    pub(crate) note: String,
}

impl Figure {
    pub(crate) fn new(name: &str, value: f64, unit: &str, goal: Goal, samples: usize) -> Self {
        let value = (value * 1000.0).round() / 1000.0;
        Figure {
            name: name.to_owned(),
            value,
            unit: unit.to_owned(),
            goal: (goal != Goal::None).then(|| goal.text()),
            met: goal.met(value),
            samples,
            spread: String::new(),
            note: String::new(),
        }
    }

    #[must_use]
    pub(crate) fn spread(mut self, of: &Samples) -> Self {
        self.spread = format!("{:.3}–{:.3}", of.quantile(0.1), of.quantile(0.9));
        self
    }

    #[must_use]
    pub(crate) fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }
}

/// Measured values of one thing, in one unit.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    pub(crate) fn push(&mut self, value: f64) {
        let at = self.0.partition_point(|v| *v < value);
        self.0.insert(at, value);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn p50(&self) -> f64 {
        self.quantile(0.5)
    }

    /// Linear interpolation between the two nearest samples; not a number when there are none.
    pub(crate) fn quantile(&self, q: f64) -> f64 {
        let Some(last) = self.0.len().checked_sub(1) else { return f64::NAN };
        let at = q * last as f64;
        let (low, high) = (self.0[at.floor() as usize], self.0[at.ceil() as usize]);
        low + (high - low) * at.fract()
    }
}

/// Prints the table and, if asked, writes the JSON.
pub(crate) fn publish(figures: &[Figure], json: Option<&Path>) -> anyhow::Result<()> {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(["name", "value", "goal", "", "samples", "p10–p90", "note"]);
    for f in figures {
        let verdict = match f.met {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "",
        };
        table.add_row([
            Cell::new(&f.name),
            Cell::new(format!("{} {}", f.value, f.unit)).set_alignment(CellAlignment::Right),
            Cell::new(f.goal.as_deref().unwrap_or("")),
            Cell::new(verdict),
            Cell::new(f.samples).set_alignment(CellAlignment::Right),
            Cell::new(&f.spread),
            Cell::new(&f.note),
        ]);
    }
    println!("{table}");
    if let Some(path) = json {
        fs::write(path, serde_json::to_vec_pretty(figures)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
        println!("written to {}", path.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_interpolate_between_neighbours() {
        let mut s = Samples::default();
        for value in [4.0, 1.0, 3.0, 2.0] {
            s.push(value);
        }
        assert_eq!(s.p50(), 2.5);
        assert_eq!(s.quantile(0.0), 1.0);
        assert_eq!(s.quantile(1.0), 4.0);
        assert!(Samples::default().p50().is_nan());
    }

    #[test]
    fn a_goal_that_is_missed_is_said_to_be_missed() {
        assert_eq!(Figure::new("x", 0.6, "", Goal::AtMost(0.5), 1).met, Some(false));
        assert_eq!(Figure::new("x", 0.5, "", Goal::AtMost(0.5), 1).met, Some(true));
        assert_eq!(Figure::new("x", 0.5, "", Goal::AtLeast(0.6), 1).met, Some(false));
    }
}
