//! Names that come in from outside. What is refused here never reaches SQL, Redis or a log as part of a name.

use dormouse_api::Problem;

const MOST: usize = 63;

/// `TENANT/NAME`, as on the server's node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerName {
    pub tenant: String,
    pub name: String,
}

impl ServerName {
    pub fn parse(field: &str, text: &str) -> Result<Self, Problem> {
        let halves = text.split_once('/').filter(|(tenant, name)| is_tenant(tenant) && is_name(name));
        let (tenant, name) = halves.ok_or_else(|| {
            let expected =
                "TENANT/NAME in small letters, digits and `-`, in NAME also `.` and `_`, at most 63 each";
            Problem::bad_field(field, format!("a server's name is {expected}, not {text:?}"))
        })?;
        Ok(Self { tenant: tenant.to_owned(), name: name.to_owned() })
    }
}

impl std::fmt::Display for ServerName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.tenant, self.name)
    }
}

fn is_made_of(text: &str, also: &[u8]) -> bool {
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (1..=MOST).contains(&text.len())
        && text.bytes().all(|byte| letter(byte) || also.contains(&byte))
        && text.bytes().next().is_some_and(letter)
}

pub fn is_tenant(text: &str) -> bool {
    is_made_of(text, b"-")
}

fn is_name(text: &str) -> bool {
    is_made_of(text, b"-._")
}

pub fn tenant(field: &str, text: &str) -> Result<String, Problem> {
    check(field, text, is_tenant(text), "a tenant's name is small letters, digits and `-`")
}

/// A node, a profile, a region, a service.
pub fn plain(field: &str, text: &str) -> Result<String, Problem> {
    check(field, text, is_name(text), "expected small letters, digits, `-`, `.` and `_`")
}

/// Any text for people: short, on one line.
pub fn title(field: &str, text: &str, most: usize) -> Result<String, Problem> {
    let fine = text.len() <= most && !text.chars().any(char::is_control);
    check(field, text, fine, "expected a short text without control characters")
}

fn check(field: &str, text: &str, fine: bool, expected: &str) -> Result<String, Problem> {
    if fine {
        return Ok(text.to_owned());
    }
    let shown: String = text.chars().take(MOST + 1).collect();
    Err(Problem::bad_field(field, format!("{expected}, not {shown:?}")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_told_from_nonsense() {
        for good in ["acme/survival", "a/b", "acme-2/mc_1.21"] {
            assert_eq!(ServerName::parse("name", good).unwrap().to_string(), good);
        }
        for bad in ["", "acme", "/", "acme/", "/x", "a/b/c", "Acme/x", "a*/x", "*/x", "a'/x", "-a/x", "a/ü"]
        {
            let problem = ServerName::parse("name", bad).unwrap_err();
            assert_eq!(problem.field.as_deref(), Some("name"), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_judged_without_panic(text: String) {
            let _ = ServerName::parse("name", &text);
            let _ = title("title", &text, 100);
        }
    }
}
