//! What a machine knows of people: whose keep it is, and who woke the server last.

use super::{Cause, Kept, Machine, Refusal};

impl Machine {
    pub fn kept(&self) -> Option<&Kept> {
        self.kept.as_ref()
    }

    /// A keep of this person becomes `nobody`'s, and no address stays. Whether there was a keep, and whether anything
    /// else.
    pub fn erase(&mut self, person: &str, nobody: &str) -> (bool, bool) {
        let rename = |owner: &mut String| {
            let theirs = owner == person;
            if theirs {
                nobody.clone_into(owner);
            }
            theirs
        };
        let kept = self.kept.as_mut().is_some_and(|kept| rename(&mut kept.owner));
        let cause = match &mut self.cause {
            Some(Cause::Player { from }) => from.take().is_some(),
            Some(Cause::NotAllowed(Refusal::Kept { owner, .. })) => rename(owner),
            _ => false,
        };
        (kept, cause)
    }
}
