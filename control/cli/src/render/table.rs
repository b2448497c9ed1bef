//! Columns of text, two blanks apart.

/// The rows under their heads, each column as wide as its widest cell; the last one ragged.
pub fn table<const N: usize>(heads: [&str; N], rows: &[[String; N]]) -> String {
    // A cell is one line, whatever it holds: nobody forges a row.
    let rows: Vec<[String; N]> =
        rows.iter().map(|row| row.clone().map(|cell| cell.replace('\n', " "))).collect();
    let heads = heads.map(str::to_owned);
    let lines = || std::iter::once(&heads).chain(&rows);
    let width = |column: usize| lines().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for line in lines() {
        let cells = line.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::table;

    #[test]
    fn columns_stand_under_each_other() {
        let rows = [["ü".into(), "1".into()], ["long".into(), "a\nb".into()]];
        assert_eq!(table(["A", "B"], &rows), "A     B\nü     1\nlong  a b\n");
    }
}
