//! What a server is called: after its unit, its container or its cgroup.

use std::collections::BTreeSet;

use crate::discover::selector::Selector;

/// Longer names help nobody in a table; a server file allows 128.
const LONGEST: usize = 48;
/// As much of a container's id as its own tools show.
const SHORT_ID: usize = 12;

/// A name in the letters that a server's name may have. `cgroup` is the path below the root.
pub fn of(selector: &Selector, cgroup: &str) -> String {
    match selector {
        Selector::Unit(name) | Selector::Docker(name) | Selector::Podman(name) => tidy(name),
        Selector::Cgroup(_) | Selector::Pid(_) => tidy(cgroup.rsplit('/').next().unwrap_or_default()),
    }
}

/// The name, or the first of `name-2`, `name-3` … that no other server of this request has.
pub fn free(name: &str, taken: &BTreeSet<String>) -> String {
    let mut free = name.to_owned();
    let mut count = 1;
    while taken.contains(&free) {
        count += 1;
        free = format!("{name}-{count}");
    }
    free
}

fn tidy(name: &str) -> String {
    let name = name.strip_suffix(".service").or_else(|| name.strip_suffix(".scope")).unwrap_or(name);
    let mut tidy = String::new();
    for letter in name.chars().map(|letter| letter.to_ascii_lowercase()) {
        match letter {
            'a'..='z' | '0'..='9' | '_' | '.' => tidy.push(letter),
            // Runs of anything else become one hyphen, at the front none.
            _ if tidy.is_empty() || tidy.ends_with('-') => {}
            _ => tidy.push('-'),
        }
    }
    let shortened = tidy
        .rsplit_once('-')
        .map_or((String::new(), tidy.as_str()), |(head, tail)| (format!("{head}-"), tail));
    let (head, tail) = shortened;
    let id = tail.len() == 64 && tail.bytes().all(|byte| byte.is_ascii_hexdigit());
    let tidy = format!("{head}{}", if id { &tail[..SHORT_ID] } else { tail });
    let tidy = tidy.trim_start_matches(['-', '_', '.']);
    let tidy = tidy[..tidy.len().min(LONGEST)].trim_end_matches(['-', '_', '.']);
    if tidy.is_empty() { "server".to_owned() } else { tidy.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_from_units_containers_and_cgroups() {
        let unit = |name: &str| of(&Selector::Unit(name.to_owned()), "/system.slice/x");
        assert_eq!(unit("minecraft@Survival.service"), "minecraft-survival");
        assert_eq!(of(&Selector::Docker("mc_1".to_owned()), "/docker/ab"), "mc_1");
        let cgroup = |path: &str| of(&Selector::Cgroup(path.to_owned()), path);
        assert_eq!(cgroup("/games/luanti"), "luanti");
        assert_eq!(cgroup("/a/-- Jürgens Welt!"), "j-rgens-welt");
        assert_eq!(cgroup("/a/ü"), "server");
        let id = "0123456789abcdef".repeat(4);
        assert_eq!(cgroup(&format!("/system.slice/docker-{id}.scope")), "docker-0123456789ab");
        assert_eq!(cgroup(&format!("/docker/{id}")), "0123456789ab");
    }

    #[test]
    fn two_of_one_name_are_told_apart() {
        let taken = BTreeSet::from(["a".to_owned(), "a-2".to_owned()]);
        assert_eq!(free("a", &taken), "a-3");
        assert_eq!(free("b", &taken), "b");
    }

    proptest::proptest! {
        #[test]
        fn every_name_is_a_server_s_name(text: String) {
            let name = of(&Selector::Docker(text), "");
            let file = format!("/x/{name}.toml");
            let parsed = crate::config::ServerFile::parse(
                std::path::Path::new(&file),
                "select = \"unit:a\"\nprofile = \"generic-tcp\"\n",
            );
            proptest::prop_assert!(parsed.is_ok_and(|file| file.name == name));
        }
    }
}
