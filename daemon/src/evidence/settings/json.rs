//! JSON; serde_json bounds the depth.

use serde_json::Value;

use super::Setting;

pub fn look_up(bytes: &[u8], key: &str) -> Setting {
    let Ok(whole) = serde_json::from_slice::<Value>(bytes) else {
        return Setting::Unclear("it is not valid JSON");
    };
    let mut here = &whole;
    for step in key.split('.') {
        match here {
            Value::Object(members) => match members.get(step) {
                Some(member) => here = member,
                None => return Setting::Missing,
            },
            _ => return Setting::Unclear("the key's place holds something else"),
        }
    }
    match here {
        Value::String(text) => Setting::Value(text.clone()),
        Value::Bool(_) | Value::Number(_) => Setting::Value(here.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => Setting::Unclear("its value is no plain value"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_values_are_read_and_others_are_not() {
        let value = |text: &str| Setting::Value(text.to_owned());
        assert_eq!(look_up(br#"{"auto_pause": true}"#, "auto_pause"), value("true"));
        assert_eq!(look_up(br#"{"Settings": {"ForceUpdate": "no"}}"#, "Settings.ForceUpdate"), value("no"));
        assert_eq!(look_up(br#"{"a": -1}"#, "a"), value("-1"));
        assert_eq!(look_up(b"{}", "a"), Setting::Missing);
        for text in [&b"[1]"[..], b"{\"a\": [1]}", b"{\"a\"", b"", b"{\"a\": null}"] {
            assert!(matches!(look_up(text, "a"), Setting::Unclear(_)), "{text:?}");
        }
        assert!(matches!(look_up(&vec![b'['; 100_000], "a"), Setting::Unclear(_)), "no stack of its depth");
    }
}
