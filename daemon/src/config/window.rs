//! Hours of the week as operators write them: `18:00-23:00`, `fri,sat 18:00-02:00`.

use super::value::{Show, quoted};
use crate::limits::Window;

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

pub fn parse(text: &str) -> Option<Window> {
    let (days, hours) = text.rsplit_once(' ').unwrap_or(("", text));
    let days = if days.is_empty() {
        0x7f
    } else {
        days.split(',').try_fold(0, |bits, day| {
            let day = day.trim();
            DAYS.iter().position(|name| *name == day).map(|number| bits | 1 << number)
        })?
    };
    let (from, until) = hours.split_once('-')?;
    let window = Window { days, from: parse_minute(from)?, until: parse_minute(until)? };
    (window.from < 24 * 60 && window.from != window.until).then_some(window)
}

/// Minutes after midnight of `HH:MM`; 24:00 is allowed, as an end.
fn parse_minute(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    if !text.bytes().all(|byte| byte.is_ascii_digit() || byte == b':') || minute.len() != 2 {
        return None;
    }
    let (hour, minute): (u16, u16) = (hour.parse().ok()?, minute.parse().ok()?);
    (minute < 60 && (hour < 24 || (hour == 24 && minute == 0))).then_some(hour * 60 + minute)
}

impl Show for Window {
    fn show(&self) -> String {
        let days: Vec<&str> = (0..7).filter(|day| self.days & 1 << day != 0).map(|day| DAYS[day]).collect();
        let days = if days.len() == 7 { String::new() } else { format!("{} ", days.join(",")) };
        let clock = |minute: u16| format!("{:02}:{:02}", minute / 60, minute % 60);
        quoted(&format!("{days}{}-{}", clock(self.from), clock(self.until)))
    }
}
