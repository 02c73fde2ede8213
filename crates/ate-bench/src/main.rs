//! Measures what the project promises and prints it beside the goals.
#![forbid(unsafe_code)]

mod floor;
mod report;

use std::path::PathBuf;

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    if args.get(1).is_some_and(|a| a == "floor-helper") {
        return floor::helper(args[2].as_ref(), args[3].as_ref(), args[4].parse()?, args[5].as_ref());
    }
    let dir = tempfile::tempdir()?;
    let mut f = floor::Floor::start(&PathBuf::from(&args[1]), &PathBuf::from(&args[2]), 10, dir.path())?;
    let mut s = report::Samples::default();
    for _ in 0..10 {
        s.push(f.sample()?);
    }
    report::publish(&[report::Figure::new("floor", s.p50(), "ms", report::Goal::None, s.len()).spread(&s)], None)
}
