//! A line a server (RFC 4180).

use crate::worth::Report;

/// With a line of heads. Hours and GiB-hours as plain numbers.
pub fn csv(report: &Report) -> String {
    let mut text = String::from(
        "server,profile,awake_hours,dozing_hours,deep_hours,waking_hours,size_gib_hours,handed_back_gib_hours,swap_written_bytes\r\n",
    );
    for server in &report.savings.servers {
        let sums = &server.sums;
        let numbers = [
            sums.awake_hours,
            sums.dozing_hours,
            sums.deep_hours,
            sums.waking_hours,
            sums.size_gib_hours,
            sums.handed_back_gib_hours,
        ];
        let mut cells = vec![quoted(&server.name), quoted(&server.profile)];
        cells.extend(numbers.map(|number| format!("{number:.4}")));
        cells.push(sums.swap_written_bytes.to_string());
        text.push_str(&cells.join(","));
        text.push_str("\r\n");
    }
    text
}

fn quoted(cell: &str) -> String {
    if cell.contains([',', '"', '\r', '\n']) {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worth::{Terms, tests::savings};

    #[test]
    fn a_name_stays_one_cell() {
        let text = csv(&Report::new(savings(), Terms::default()));
        let line = text.lines().nth(1).unwrap();
        assert_eq!(line, "\"a,<b>\",luanti,66.0000,6.0000,144.0000,0.0000,1296.0000,900.0000,1099511627776");
        assert_eq!(quoted("a\"b"), "\"a\"\"b\"");
    }
}
