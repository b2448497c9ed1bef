//! Rows that are written at the end of a transaction.
//!
//! A write's event and its kept answer are read by nobody before the commit. PostgreSQL gets them in one statement, for
//! each costs a round trip; SQLite, which knows no INSERT in a WITH, in one a table.

use super::Arg;

/// In the order in which they were added.
#[derive(Debug, Default)]
pub struct Last(Vec<Part>);

/// Of one table.
#[derive(Debug)]
struct Part {
    table: &'static str,
    columns: &'static str,
    rows: Vec<Vec<Arg>>,
}

/// In one INSERT. PostgreSQL binds at most 65,535 values to a statement, SQLite 32,766.
const MOST: usize = 500;

impl Last {
    pub fn add(&mut self, table: &'static str, columns: &'static str, values: &[Arg]) {
        match self.0.iter_mut().rfind(|known| known.table == table && known.rows.len() < MOST) {
            Some(known) => known.rows.push(values.to_vec()),
            None => self.0.push(Part { table, columns, rows: vec![values.to_vec()] }),
        }
    }

    /// `together`: all of them in one, but for a table's rows after the first [`MOST`]. (The parts of a WITH run in any
    /// order, so a table is in it once; its rows are written in theirs.)
    pub fn statements(self, together: bool) -> Vec<(String, Vec<Arg>)> {
        let mut statements: Vec<Vec<Part>> = Vec::new();
        for rows in self.0 {
            match statements.last_mut() {
                Some(parts) if together && parts.iter().all(|part| part.table != rows.table) => {
                    parts.push(rows);
                }
                _ => statements.push(vec![rows]),
            }
        }
        statements.into_iter().map(statement).collect()
    }
}

fn statement(parts: Vec<Part>) -> (String, Vec<Arg>) {
    let mut values = Vec::new();
    let mut inserts: Vec<String> = parts.into_iter().map(|rows| insert(rows, &mut values)).collect();
    let last = inserts.pop().unwrap_or_default();
    if inserts.is_empty() {
        return (last, values);
    }
    let within: Vec<String> =
        inserts.iter().enumerate().map(|(number, insert)| format!("part_{number} AS ({insert})")).collect();
    (format!("WITH {} {last}", within.join(", ")), values)
}

fn insert(of: Part, values: &mut Vec<Arg>) -> String {
    let mut rows = Vec::with_capacity(of.rows.len());
    for row in of.rows {
        let places = values.len() + 1..=values.len() + row.len();
        let places: Vec<String> = places.map(|place| format!("${place}")).collect();
        rows.push(format!("({})", places.join(", ")));
        values.extend(row);
    }
    format!("INSERT INTO {} ({}) VALUES {}", of.table, of.columns, rows.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::args;

    fn all() -> Last {
        let mut last = Last::default();
        last.add("a", "x, y", &args![1u64, 2u64]);
        last.add("b", "z", &args!["three"]);
        last.add("a", "x, y", &args![4u64, 5u64]);
        last
    }

    #[test]
    fn one_statement_for_all() {
        let statements = all().statements(true);
        assert_eq!(statements.len(), 1);
        assert_eq!(
            statements[0].0,
            "WITH part_0 AS (INSERT INTO a (x, y) VALUES ($1, $2), ($3, $4)) INSERT INTO b (z) VALUES ($5)"
        );
        let numbers = |values: &[Arg]| values.iter().map(|value| format!("{value:?}")).collect::<Vec<_>>();
        assert_eq!(numbers(&statements[0].1), numbers(&args![1u64, 2u64, 4u64, 5u64, "three"]));
    }

    #[test]
    fn one_a_table() {
        let texts: Vec<String> = all().statements(false).into_iter().map(|(sql, _)| sql).collect();
        assert_eq!(
            texts,
            ["INSERT INTO a (x, y) VALUES ($1, $2), ($3, $4)", "INSERT INTO b (z) VALUES ($1)"]
        );
    }

    #[test]
    fn a_statement_has_an_end_and_rows_keep_their_order() {
        let mut last = Last::default();
        for number in 0..=MOST as u64 {
            last.add("a", "x", &args![number]);
        }
        last.add("b", "z", &args!["then"]);
        let statements = last.statements(true);
        assert_eq!(statements.len(), 2);
        assert_eq!((statements[0].1.len(), statements[1].1.len()), (MOST, 2));
        assert!(Last::default().statements(true).is_empty());
    }
}
