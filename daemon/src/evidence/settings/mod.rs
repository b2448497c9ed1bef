//! One setting out of a game's own settings file. The file is the server's: every byte of it is hostile, and
//! what isn't plainly understood is `Unclear`, never guessed.

mod json;
mod properties;
mod yaml;

use std::path::Path;

/// What a file says of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setting {
    Value(String),
    /// The game takes its default.
    Missing,
    Unclear(&'static str),
}

/// Looks a key up in a file whose format its ending tells; in structured files a dot stands between levels.
pub fn look_up(file: &Path, bytes: &[u8], key: &str) -> Setting {
    match file.extension().and_then(|ending| ending.to_str()) {
        Some("properties") => properties::look_up(&String::from_utf8_lossy(bytes), key),
        Some("yml" | "yaml") => match str::from_utf8(bytes) {
            Ok(text) => yaml::look_up(text, key),
            Err(_) => Setting::Unclear("it is not UTF-8"),
        },
        Some("json") => json::look_up(bytes, key),
        _ => Setting::Unclear("only .properties, .yml, .yaml and .json are understood"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ending_tells_the_format() {
        let value = |text: &str| Setting::Value(text.to_owned());
        assert_eq!(look_up(Path::new("server.properties"), b"a=-1", "a"), value("-1"));
        assert_eq!(look_up(Path::new("/data/spigot.yml"), b"a:\n  b: -1\n", "a.b"), value("-1"));
        assert_eq!(look_up(Path::new("c.json"), br#"{"a":{"b":true}}"#, "a.b"), value("true"));
        assert!(matches!(look_up(Path::new("server.cfg"), b"a=-1", "a"), Setting::Unclear(_)));
        assert!(matches!(look_up(Path::new("a.yml"), b"\xff", "a"), Setting::Unclear(_)));
    }

    proptest::proptest! {
        #[test]
        fn no_file_makes_it_panic(bytes: Vec<u8>, key: String, format in 0..3usize) {
            let name = ["a.properties", "a.yml", "a.json"][format];
            let _ = look_up(Path::new(name), &bytes, &key);
        }

        /// Bytes that mean something in one of the formats.
        #[test]
        fn no_nearly_right_file_makes_it_panic(text in "[ab:.=#!\\\\u0-9 \t\n\r|>'\"{}\\[\\]-]{0,200}", format in 0..3usize) {
            let name = ["a.properties", "a.yml", "a.json"][format];
            if let Setting::Value(value) = look_up(Path::new(name), text.as_bytes(), "a.b") {
                proptest::prop_assert!(value.len() <= text.len());
            }
        }
    }
}
