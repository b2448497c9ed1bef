//! What a machine knows of people: whose keep it is, and who woke the server last.

use super::{Cause, Kept, Machine, Refusal, Saved};

impl Machine {
    pub fn kept(&self) -> Option<&Kept> {
        self.kept.as_ref()
    }

    /// A keep of this person becomes `nobody`'s, and no address stays. Whether there was a keep, and whether anything
    /// else.
    pub fn erase(&mut self, person: &str, nobody: &str) -> (bool, bool) {
        let kept = self.kept.as_mut().is_some_and(|kept| rename(&mut kept.owner, person, nobody));
        let cause = match &mut self.cause {
            Some(Cause::Player { from }) => from.take().is_some(),
            Some(Cause::NotAllowed(Refusal::Kept { owner, .. })) => rename(owner, person, nobody),
            _ => false,
        };
        (kept, cause)
    }
}

impl Saved {
    /// As [`Machine::erase`], of a server that was not found again yet. Whether there was a keep.
    pub fn erase(&mut self, person: &str, nobody: &str) -> bool {
        self.kept.as_mut().is_some_and(|kept| rename(&mut kept.owner, person, nobody))
    }
}

fn rename(owner: &mut String, person: &str, nobody: &str) -> bool {
    let theirs = owner == person;
    if theirs {
        nobody.clone_into(owner);
    }
    theirs
}
