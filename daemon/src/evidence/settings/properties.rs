//! Java's properties, as `java.util.Properties.load` describes them; Minecraft Bedrock's are a part of it.

use super::Setting;

pub fn look_up(text: &str, key: &str) -> Setting {
    let mut found = Setting::Missing;
    for line in logical_lines(text) {
        let (name, value) = split(&line);
        // Of a key that comes twice, the later one holds.
        if unescape(name) == key {
            found = Setting::Value(unescape(value).trim_end().to_owned());
        }
    }
    found
}

/// Lines without comments and blank ones; an odd number of backslashes at the end joins the next line.
fn logical_lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut open: Option<String> = None;
    for line in text.split(['\n', '\r']) {
        let line = line.trim_start_matches([' ', '\t', '\x0c']);
        if open.is_none() && (line.is_empty() || line.starts_with(['#', '!'])) {
            continue;
        }
        let mut whole = open.take().unwrap_or_default();
        let goes_on = line.bytes().rev().take_while(|&byte| byte == b'\\').count() % 2 == 1;
        whole.push_str(if goes_on { &line[..line.len() - 1] } else { line });
        if goes_on { open = Some(whole) } else { lines.push(whole) }
    }
    lines.extend(open);
    lines
}

/// The key ends at the first `=`, `:` or white space that is not escaped.
fn split(line: &str) -> (&str, &str) {
    let mut escaped = false;
    let end = line.find(|letter| {
        let ends = !escaped && matches!(letter, '=' | ':' | ' ' | '\t' | '\x0c');
        escaped = !escaped && letter == '\\';
        ends
    });
    let Some(end) = end else { return (line, "") };
    let blank = [' ', '\t', '\x0c'];
    let value = line[end..].trim_start_matches(blank);
    let value = value.strip_prefix(['=', ':']).unwrap_or(value);
    (&line[..end], value.trim_start_matches(blank))
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(letter) = rest.next() {
        if letter != '\\' {
            out.push(letter);
            continue;
        }
        match rest.next() {
            Some('t') => out.push('\t'),
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('f') => out.push('\x0c'),
            Some('u') => {
                let digits: String = rest.by_ref().take(4).collect();
                let code = u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32);
                out.push(code.unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            other => out.extend(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Setting {
        look_up(text, "max-tick-time")
    }

    #[test]
    fn every_way_to_write_it_is_read() {
        let off = Setting::Value("-1".to_owned());
        for text in [
            "#Minecraft server properties\nmotd=A \\u00A7 server\nmax-tick-time=-1\nview-distance=10\n",
            "max-tick-time = -1\r\n",
            "  max-tick-time:-1  ",
            "max-tick-time -1",
            "max\\-tick\\-time=-1",
            "max-tick-\\\n   time=-1",
            "max-tick-time=60000\nmax-tick-time=-1",
            "max-tick-time=\\u002d1",
        ] {
            assert_eq!(value(text), off, "{text:?}");
        }
    }

    #[test]
    fn what_only_looks_like_it_is_not_it() {
        for text in [
            "",
            "#max-tick-time=-1",
            "! max-tick-time=-1",
            "motd=hello\\\nmax-tick-time=-1",
            "xmax-tick-time=-1",
            "max-tick-time\\=-1",
        ] {
            assert_eq!(value(text), Setting::Missing, "{text:?}");
        }
        assert_eq!(value("max-tick-time"), Setting::Value(String::new()));
        assert_eq!(value("max-tick-time=60000"), Setting::Value("60000".to_owned()));
    }

    proptest::proptest! {
        #[test]
        fn a_value_comes_back(value in "[a-z0-9-]{0,20}", before in "[a-z=\n]{0,40}", after in "[x=\n]{0,40}") {
            let text = format!("{before}\nthe-key={value}\n{after}");
            proptest::prop_assert_eq!(look_up(&text, "the-key"), Setting::Value(value));
        }
    }
}
