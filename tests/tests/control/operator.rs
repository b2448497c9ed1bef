//! What an operator types on a new control plane, with its exit statuses.

use crate::plane::URL;
use crate::region::Region;

#[test]
fn an_operator_needs_nothing_but_the_command() {
    let region = Region::start(1, false).unwrap();
    let at = |which: &str, words: &[&str]| region.dormouse_at(which, words).unwrap();
    let is = |status: i32, words: &[&str], part: &str| {
        let (code, said) = at(URL, words);
        assert!(code == status && said.contains(part), "dormouse {}: {code}: {said}", words.join(" "));
        said
    };
    is(0, &["tenants", "add", "acme", "--servers", "5"], "acme");
    is(3, &["tenants", "add", "acme"], "already");
    is(0, &["tenants", "list"], "bench");
    is(0, &["nodes", "add", "fra-2", "--memory", "1073741824"], "1.0 GiB of 1.0 GiB");
    is(0, &["nodes"], "fra-2");
    is(1, &["servers", "add", "core/x", "-p", "luanti"], "dormouse tenants add");
    is(2, &["servers", "add", "nonsense", "-p", "luanti"], "TENANT/NAME");
    is(0, &["servers", "add", "acme/x", "-p", "luanti", "--node", "fra-2"], "observe");
    is(1, &["wake", "acme/none"], "dormouse servers add");
    is(3, &["nodes", "remove", "fra-2"], "servers run on fra-2");
    is(0, &["servers", "remove", "acme/x"], "removed");

    // A key, a context, and everything by the context.
    let secret = region.plane.folder().join("anna.secret");
    let secret = secret.to_str().unwrap();
    is(2, &["keys", "add", "anna", "--secret-file", secret], "--operator");
    let made = is(0, &["keys", "add", "anna", "--operator", "--secret-file", secret], "operator");
    let key = made.lines().nth(1).and_then(|line| line.split_whitespace().next()).unwrap();
    is(1, &["keys", "add", "anna", "--operator", "--secret-file", secret], "cannot write the new file");
    let login = ["login", "home", "--url", URL, "--key", key, "--secret-file", secret];
    is(0, &login, "--control home");
    let (code, said) = at("home", &["keys", "list"]);
    assert!(code == 0 && said.contains("anna"), "{said}");
    assert_eq!(at("nowhere", &["nodes"]).0, 1);

    let made = is(0, &["erasure", "request", "person-1"], "node:fra-2");
    let id = made.split_whitespace().next().unwrap().to_owned();
    is(2, &["erasure", "request", "Anna B"], "opaque");
    is(0, &["erasure", "list"], &id);
    is(2, &["erasure", "skip", &id, "node:fra-9", "--reason", "x"], "not asked");
    is(0, &["erasure", "skip", &id, "node:fra-2", "--reason", "its disks were destroyed"], "destroyed");
    region
        .stand
        .wait_until("the rest of the matrix", || {
            let (_, said) = region.dormouse_at(URL, &["erasure", "show", &id])?;
            anyhow::ensure!(said.contains("completed"), "{said}");
            Ok(())
        })
        .unwrap();
    is(1, &["erasure", "show", "none"], "no erasure");
    is(0, &["erasure", "replay", "--since", "1h"], "1 asked again");
    is(0, &["nodes", "remove", "fra-2"], "removed");
    is(0, &["keys", "remove", key], "removed");

    // What needs Redis says so.
    for words in [&["index", "check"][..], &["bus", "dead"], &["bus", "redrive", "1-1"]] {
        is(3, words, "edis");
    }
    is(0, &["bus", "tail", "--type", "dormouse.erasure."], "dormouse.erasure.completed");
    is(0, &["profile", "set", "-p", "luanti", "doze_after", "7m"], "* profile   7m");
    is(0, &["profile", "history", "-p", "luanti"], "5m   7m");
    is(2, &["profile", "set", "-p", "luanti", "doze_after", "soon"], "expected a duration");
    is(2, &["nodes", "paint"], "unrecognized subcommand");
    for shell in ["bash", "zsh", "fish"] {
        is(0, &["completions", shell], "erasure");
    }
}
