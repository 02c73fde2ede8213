//! Tables in the plain style of kubectl: a header, columns apart by spaces, no lines.

use comfy_table::{ColumnConstraint, ContentArrangement, Table as Grid, Width, presets::NOTHING};

/// Space between columns.
const GAP: u16 = 3;

/// Rows that are printed at once or, in a watch, one after the other under the same header.
pub(crate) struct Table {
    header: Vec<&'static str>,
    /// Of the columns printed so far; later rows keep to them where they can.
    widths: Vec<u16>,
}

impl Table {
    pub(crate) fn new(header: Vec<&'static str>) -> Table {
        Table { header, widths: Vec::new() }
    }

    /// The rows as text; the first call puts the header before them.
    pub(crate) fn print(&mut self, rows: &[Vec<String>]) -> String {
        let mut grid = Grid::new();
        grid.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        if self.widths.is_empty() {
            grid.set_header(self.header.clone());
        }
        for row in rows {
            // An empty cell looks like a shifted row to `awk`.
            grid.add_row(row.iter().map(|cell| if cell.is_empty() { "-" } else { cell.as_str() }));
        }
        for (column, width) in grid.column_iter_mut().zip(&self.widths) {
            column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(width + GAP)));
        }
        grid.column_iter_mut().for_each(|c| {
            c.set_padding((0, GAP));
        });
        let seen = grid.column_max_content_widths();
        match self.widths.is_empty() {
            true => self.widths = seen,
            false => self.widths.iter_mut().zip(seen).for_each(|(w, s)| *w = (*w).max(s)),
        }
        grid.lines().map(|line| format!("{}\n", line.trim_end())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cells: &[&str]) -> Vec<String> {
        cells.iter().map(|c| c.to_string()).collect()
    }

    #[test]
    fn columns_line_up_and_empty_cells_show_a_dash() {
        let text = Table::new(vec!["NAME", "STATUS", "AGE"])
            .print(&[row(&["a", "Running", "5m"]), row(&["longer", "", "1s"])]);
        assert_eq!(text, "NAME     STATUS    AGE\na        Running   5m\nlonger   -         1s\n");
    }

    #[test]
    fn later_rows_of_a_watch_stay_under_their_columns_without_a_second_header() {
        let mut table = Table::new(vec!["NAME", "STATUS", "AGE"]);
        table.print(&[row(&["longer", "Suspended", "5m"])]);
        assert_eq!(table.print(&[row(&["a", "Running", "1s"])]), "a        Running     1s\n");
    }
}
