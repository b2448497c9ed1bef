//! Values of thresholds, from what an operator typed to TOML as a node reads it.

use std::time::Duration;

use dormouse_api::Problem;
use dormouse_api::registry::threshold::{Kind, THRESHOLDS, find};
use toml::Value;

use crate::names::ServerName;

const SIZES: [(&str, u32); 5] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10), ("B", 0)];
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
/// The longest value that is kept.
const MOST: usize = 1024;

/// The value as it would be written in TOML.
pub fn canonical(key: &str, typed: &str) -> Result<String, Problem> {
    let Some(threshold) = find(key) else {
        let known: Vec<_> = THRESHOLDS.iter().map(|threshold| threshold.key).collect();
        let detail = format!("no threshold is called {key:?}; there are: {}", known.join(", "));
        return Err(Problem::bad_field("key", detail));
    };
    let typed = typed.trim();
    let read = || {
        if typed.len() > MOST || typed.contains('\n') {
            return None;
        }
        let value = Value::deserialize_one(typed).unwrap_or_else(|| Value::String(typed.to_owned()));
        written(threshold.kind, &value)
    };
    read().ok_or_else(|| {
        let shown: String = typed.chars().take(80).collect();
        Problem::bad_field("value", format!("{key}: {}, not {shown:?}", expected(threshold.kind)))
    })
}

trait DeserializeOne: Sized {
    fn deserialize_one(text: &str) -> Option<Self>;
}

impl DeserializeOne for Value {
    /// One TOML value on one line.
    fn deserialize_one(text: &str) -> Option<Self> {
        let mut table: toml::Table = toml::from_str(&format!("value = {text}")).ok()?;
        let value = table.remove("value")?;
        table.is_empty().then_some(value)
    }
}

fn expected(kind: Kind) -> String {
    match kind {
        Kind::Duration => "expected a duration like 10m, 90s or 1h 30m".to_owned(),
        Kind::DurationOrNever => "expected a duration like 10m, or never".to_owned(),
        Kind::Number => "expected a whole number from 0 to 4294967295".to_owned(),
        Kind::NumberOrNever => "expected a whole number, or never".to_owned(),
        Kind::Size => "expected a size like 64MiB or 2GiB (B, KiB, MiB, GiB, TiB)".to_owned(),
        Kind::Words(words) => format!("allowed are {}", words.join(", ")),
        Kind::Names => "expected a list of servers like [\"acme/lobby\"]".to_owned(),
        Kind::Windows => "expected a list of hours like [\"fri,sat 18:00-02:00\"]".to_owned(),
    }
}

fn written(kind: Kind, value: &Value) -> Option<String> {
    match kind {
        Kind::Duration => duration(value.as_str()?),
        Kind::DurationOrNever => never(value).or_else(|| duration(value.as_str()?)),
        Kind::Number => number(value),
        Kind::NumberOrNever => never(value).or_else(|| number(value)),
        Kind::Size => size(value.as_str()?),
        Kind::Words(words) => {
            let word = value.as_str()?;
            words.contains(&word).then(|| quoted(word))
        }
        Kind::Names => {
            list(value, |name| ServerName::parse("value", name).ok().map(|name| quoted(&name.to_string())))
        }
        Kind::Windows => list(value, |hours| is_window(hours).then(|| quoted(hours))),
    }
}

fn quoted(text: &str) -> String {
    Value::String(text.to_owned()).to_string()
}

fn never(value: &Value) -> Option<String> {
    (value.as_str() == Some("never")).then(|| quoted("never"))
}

fn duration(text: &str) -> Option<String> {
    let duration: Duration = humantime::parse_duration(text).ok()?;
    Some(quoted(&humantime::format_duration(duration).to_string()))
}

fn number(value: &Value) -> Option<String> {
    let number = value.as_integer().or_else(|| value.as_str()?.parse().ok())?;
    u32::try_from(number).ok().map(|number| number.to_string())
}

fn size(text: &str) -> Option<String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (_, shift) = SIZES.iter().find(|(unit, _)| *unit == text[digits..].trim_start())?;
    let bytes = text[..digits].parse::<u64>().ok()?.checked_mul(1 << shift)?;
    let fits = |(_, shift): &&(&str, u32)| bytes != 0 && bytes.trailing_zeros() >= *shift;
    let (unit, shift) = SIZES.iter().find(fits).unwrap_or(&("B", 0));
    Some(quoted(&format!("{}{unit}", bytes >> shift)))
}

fn list(value: &Value, one: impl Fn(&str) -> Option<String>) -> Option<String> {
    let items = value.as_array()?.iter().map(|item| one(item.as_str()?)).collect::<Option<Vec<_>>>()?;
    Some(format!("[{}]", items.join(", ")))
}

/// `18:00-23:00`, `fri,sat 18:00-02:00`
fn is_window(text: &str) -> bool {
    let (days, hours) = text.rsplit_once(' ').unwrap_or(("mon", text));
    let Some((from, until)) = hours.split_once('-') else { return false };
    let (from, until) = (minute(from), minute(until));
    days.split(',').all(|day| DAYS.contains(&day.trim()))
        && from.is_some_and(|from| from < 24 * 60)
        && until.is_some()
        && from != until
}

fn minute(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    if !text.bytes().all(|byte| byte.is_ascii_digit() || byte == b':') || minute.len() != 2 {
        return None;
    }
    let (hour, minute): (u16, u16) = (hour.parse().ok()?, minute.parse().ok()?);
    (minute < 60 && (hour < 24 || (hour == 24 && minute == 0))).then_some(hour * 60 + minute)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_are_written_as_a_node_reads_them() {
        for (key, typed, expected) in [
            ("doze_after", "600s", "\"10m\""),
            ("doze_after", "\"10m\"", "\"10m\""),
            ("deep_after", "never", "\"never\""),
            ("wakes_per_hour", "012", "12"),
            ("wakes_per_hour", "12", "12"),
            ("busy_cpu_percent", "never", "\"never\""),
            ("resident_min", "1024MiB", "\"1GiB\""),
            ("floor", "deep", "\"deep\""),
            ("linked", "[\"acme/lobby\"]", "[\"acme/lobby\"]"),
            ("windows", "[\"fri,sat 18:00-02:00\"]", "[\"fri,sat 18:00-02:00\"]"),
        ] {
            assert_eq!(canonical(key, typed).unwrap(), expected, "{key} = {typed}");
        }
    }

    #[test]
    fn nonsense_is_refused_by_its_field() {
        for (key, typed) in [
            ("doze_after", "soon"),
            ("doze_after", "\"10m\"\nfloor = \"deep\""),
            ("doze_after", "10"),
            ("wakes_per_hour", "-1"),
            ("floor", "basement"),
            ("resident_min", "1GB"),
            ("windows", "[\"25:00-26:00\"]"),
            ("linked", "lobby"),
        ] {
            assert_eq!(canonical(key, typed).unwrap_err().field.as_deref(), Some("value"), "{key} = {typed}");
        }
        assert_eq!(canonical("doze_aftr", "10m").unwrap_err().field.as_deref(), Some("key"));
    }

    #[test]
    fn the_built_in_values_are_values() {
        for threshold in THRESHOLDS {
            assert_eq!(canonical(threshold.key, threshold.built_in).unwrap(), threshold.built_in);
        }
    }

    proptest! {
        #[test]
        fn what_is_accepted_stays_as_it_is(index in 0..THRESHOLDS.len(), typed: String) {
            let key = THRESHOLDS[index].key;
            if let Ok(value) = canonical(key, &typed) {
                prop_assert_eq!(canonical(key, &value).unwrap(), value);
            }
        }
    }
}
