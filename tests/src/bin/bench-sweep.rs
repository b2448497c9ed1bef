//! Removes namespaces, cgroups and processes that a killed run of the bench left behind.

fn main() {
    dormouse_tests::owner::sweep();
}
