//! The part of YAML that games write their settings in: mappings in blocks, with plain or quoted values.
//! Lists, block texts and flow collections are passed over where they don't matter, and whatever else could
//! matter (anchors, tags, merges, tabs, several documents) makes the answer `Unclear`.

use super::Setting;

/// A key whose lines we are below.
struct Level<'a> {
    indent: usize,
    name: &'a str,
    /// Where the lines of its mapping start, once one was seen; what is deeper below a value goes on with it.
    below: Below,
}

enum Below {
    Nothing,
    MappingAt(usize),
    RestOfValue,
}

pub fn look_up(text: &str, key: &str) -> Setting {
    let wanted: Vec<&str> = key.split('.').collect();
    let mut levels: Vec<Level<'_>> = Vec::new();
    let mut found = Setting::Missing;
    for (number, line) in text.lines().enumerate() {
        let content = line.trim_start_matches(' ');
        let indent = line.len() - content.len();
        let content = content.trim_end();
        if content.is_empty() || content.starts_with('#') || (number == 0 && content == "---") {
            continue;
        }
        levels.truncate(levels.iter().take_while(|level| level.indent < indent).count());
        let matched = path_matches(&levels, &wanted);
        if let Some(Level { below: Below::RestOfValue, .. }) = levels.last() {
            if matched && levels.len() == wanted.len() {
                return Setting::Unclear("its value goes over several lines");
            }
            continue;
        }
        if content.starts_with('\t') || (indent == 0 && (content.starts_with("---") || content == "...")) {
            return Setting::Unclear("it is not plain YAML");
        }
        if content == "-" || content.starts_with("- ") {
            levels.push(Level { indent, name: "-", below: Below::RestOfValue });
            continue;
        }
        match levels.last_mut().map(|level| &mut level.below) {
            Some(below @ Below::Nothing) => *below = Below::MappingAt(indent),
            Some(Below::MappingAt(other)) if *other != indent => {
                return Setting::Unclear("its indentation is uneven");
            }
            None if indent != 0 => return Setting::Unclear("its indentation is uneven"),
            _ => {}
        }
        let Some((name, value)) = key_and_value(content) else {
            return Setting::Unclear("it is not plain YAML");
        };
        let value = without_comment(value);
        let below = if value.is_empty() { Below::Nothing } else { Below::RestOfValue };
        levels.push(Level { indent, name, below });
        if !path_matches(&levels, &wanted) {
            if name == "<<" && matched {
                return Setting::Unclear("it merges mappings");
            }
            continue;
        }
        if levels.len() < wanted.len() {
            if !value.is_empty() {
                return Setting::Unclear("the key's place holds something else");
            }
            continue;
        }
        if found != Setting::Missing {
            return Setting::Unclear("it has the key twice");
        }
        match plain(value) {
            Some(value) => found = Setting::Value(value.to_owned()),
            None => return Setting::Unclear("its value is no plain value"),
        }
    }
    found
}

/// Whether we are on the way to the wanted key, or at it.
fn path_matches(levels: &[Level<'_>], wanted: &[&str]) -> bool {
    levels.len() <= wanted.len() && levels.iter().zip(wanted).all(|(level, step)| level.name == *step)
}

/// `None`: not a key that we understand.
fn key_and_value(content: &str) -> Option<(&str, &str)> {
    if let Some(quote @ ('"' | '\'')) = content.chars().next() {
        let (name, rest) = content[1..].split_once(quote)?;
        let value = rest.trim_start_matches(' ').strip_prefix(':')?;
        let whole = value.is_empty() || value.starts_with(' ');
        return (whole && !name.contains('\\')).then_some((name, value));
    }
    if content.starts_with(['&', '*', '!', '?', '{', '[', '}', ']', '|', '>', '@', '`', '%', ',']) {
        return None;
    }
    match content.split_once(": ") {
        Some((name, value)) => Some((name.trim_end(), value)),
        None => content.strip_suffix(':').map(|name| (name.trim_end(), "")),
    }
}

/// A comment starts after white space; in a quoted value it could be text, which [`plain`] refuses then.
fn without_comment(value: &str) -> &str {
    let value = value.trim();
    if value.starts_with('#') {
        return "";
    }
    if value.starts_with(['"', '\'']) {
        return value;
    }
    value.split_once(" #").map_or(value, |(value, _)| value.trim_end())
}

fn plain(value: &str) -> Option<&str> {
    match value.chars().next()? {
        quote @ ('"' | '\'') => {
            let (inner, rest) = value[1..].split_once(quote)?;
            let rest = rest.trim_start();
            (!inner.contains('\\') && (rest.is_empty() || rest.starts_with('#'))).then_some(inner)
        }
        '&' | '*' | '!' | '{' | '[' | '|' | '>' | '@' | '`' | '%' => None,
        _ => Some(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPIGOT: &str = "\
# This is the main configuration file for Spigot.
settings:
  debug: false
  sample-count: 12
  restart-script: ./start.sh
  attribute:
    maxHealth:
      max: 2048.0
  timeout-time: -1
  user-cache-size: 1000
messages:
  whitelist: You are not whitelisted on this server!
  unknown-command: 'Unknown command. Type \"/help\" for help.'
commands:
  replace-commands:
  - setblock
  - summon
  spam-exclusions:
  - /skill
world-settings:
  default:
    timeout-time: 60
config-version: 12
";

    fn spigot(text: &str) -> Setting {
        look_up(text, "settings.timeout-time")
    }

    #[test]
    fn a_real_file_is_read() {
        assert_eq!(spigot(SPIGOT), Setting::Value("-1".to_owned()));
        assert_eq!(look_up(SPIGOT, "world-settings.default.timeout-time"), Setting::Value("60".to_owned()));
        assert_eq!(look_up(SPIGOT, "config-version"), Setting::Value("12".to_owned()));
        assert_eq!(look_up(SPIGOT, "settings.no-such"), Setting::Missing);
        for text in [
            "---\r\n\"settings\":\r\n    'timeout-time': \"-1\" # never\r\n",
            "settings: # x\n timeout-time:   -1\n",
        ] {
            assert_eq!(spigot(text), Setting::Value("-1".to_owned()), "{text:?}");
        }
    }

    #[test]
    fn what_only_looks_like_it_is_not_it() {
        for text in [
            "",
            "timeout-time: -1\n",
            "other:\n  timeout-time: -1\n",
            "settings:\nother:\n  timeout-time: -1\n",
            "settings:\n  motd: |\n    settings:\n    timeout-time: -1\n",
            "settings:\n  deep:\n    timeout-time: -1\n",
            "settings:\n  list:\n  - timeout-time: -1\n  - a: 1\n    timeout-time: -1\n",
            "motd: >\n  settings:\n    timeout-time: -1\n",
            "#settings:\n#  timeout-time: -1\n",
        ] {
            assert_eq!(spigot(text), Setting::Missing, "{text:?}");
        }
    }

    #[test]
    fn what_is_not_plain_is_unclear() {
        for text in [
            "settings: {timeout-time: -1}\n",
            "settings: &anchor\n  timeout-time: -1\n",
            "settings:\n  timeout-time: !!int -1\n",
            "settings:\n  timeout-time: -1\n  timeout-time: 60\n",
            "settings:\n  timeout-time: -1\nsettings:\n  timeout-time: 60\n",
            "settings:\n  timeout-time: -1\n    60\n",
            "settings:\n  timeout-time:\n",
            "settings:\n  <<: *base\n",
            "settings:\n\ttimeout-time: -1\n",
            "a: 1\n---\nsettings:\n  timeout-time: -1\n",
            "settings:\n    a: 1\n  timeout-time: -1\n",
            "  settings:\n    timeout-time: -1\n",
            "\u{0}\u{1}junk",
        ] {
            assert!(matches!(spigot(text), Setting::Unclear(_)), "{text:?}: {:?}", spigot(text));
        }
    }

    proptest::proptest! {
        #[test]
        fn a_value_comes_back(value in "[a-z0-9][a-z0-9-]{0,20}", sibling in "[a-z]{1,8}", deep in 1..9usize) {
            let pad = " ".repeat(deep);
            let text = format!("x{sibling}: 1\nsettings:\n{pad}x{sibling}: [1, 2]\n{pad}timeout-time: {value}\n");
            proptest::prop_assert_eq!(spigot(&text), Setting::Value(value));
        }
    }
}
