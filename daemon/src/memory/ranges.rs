//! Sets of pages as sorted, disjoint spans of addresses.

use std::sync::OnceLock;

use super::sys::MAX_PIECES;

/// One step of moving memory: the time between two looks at the cancel flag (about 1 ms on an SSD), and short
/// enough that the process's own mmap() waits 20 ms at most behind it.
pub const STEP: u64 = 2 << 20;

/// The machine's page size, in bytes.
pub fn page_size() -> u64 {
    static SIZE: OnceLock<u64> = OnceLock::new();
    *SIZE.get_or_init(|| {
        let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE);
        size.ok().flatten().map_or(4096, |size| size as u64)
    })
}

/// Addresses from `start` up to, not including, `end`; both at page borders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(into = "(u64, u64)", from = "(u64, u64)")]
pub struct Span {
    pub start: u64,
    pub end: u64,
}

impl Span {
    pub const fn new(start: u64, end: u64) -> Self {
        Self { start, end }
    }

    /// 0 for a span that ends before it starts.
    pub const fn bytes(self) -> u64 {
        self.end.saturating_sub(self.start)
    }
}

impl From<Span> for (u64, u64) {
    fn from(span: Span) -> Self {
        (span.start, span.end)
    }
}

impl From<(u64, u64)> for Span {
    fn from((start, end): (u64, u64)) -> Self {
        Self { start, end }
    }
}

pub fn total(spans: &[Span]) -> u64 {
    spans.iter().map(|s| s.bytes()).sum()
}

/// Sorts, drops empty spans, joins what overlaps, touches or lies no more than `gap` bytes apart.
pub fn joined(mut spans: Vec<Span>, gap: u64) -> Vec<Span> {
    spans.retain(|s| s.bytes() > 0);
    spans.sort_unstable();
    spans.dedup_by(|next, kept| {
        let joins = next.start <= kept.end.saturating_add(gap);
        if joins {
            kept.end = kept.end.max(next.end);
        }
        joins
    });
    spans
}

pub fn union(a: &[Span], b: &[Span]) -> Vec<Span> {
    joined([a, b].concat(), 0)
}

/// What lies in both; each input sorted and disjoint.
pub fn intersection(a: &[Span], b: &[Span]) -> Vec<Span> {
    let (mut i, mut j) = (0, 0);
    let mut both = Vec::new();
    while let (Some(x), Some(y)) = (a.get(i), b.get(j)) {
        let common = Span::new(x.start.max(y.start), x.end.min(y.end));
        if common.bytes() > 0 {
            both.push(common);
        }
        if x.end < y.end { i += 1 } else { j += 1 }
    }
    both
}

/// What lies in `a` but not in `b`; each input sorted and disjoint.
pub fn difference(a: &[Span], b: &[Span]) -> Vec<Span> {
    let mut rest = Vec::new();
    let mut j = 0;
    for span in a {
        let mut start = span.start;
        while b.get(j).is_some_and(|hole| hole.end <= start) {
            j += 1;
        }
        for hole in b[j..].iter().take_while(|hole| hole.start < span.end) {
            if hole.start > start {
                rest.push(Span::new(start, hole.start));
            }
            start = start.max(hole.end);
        }
        if start < span.end {
            rest.push(Span::new(start, span.end));
        }
    }
    rest
}

/// Cuts a set into steps of at most [`STEP`] bytes and as many pieces as one system call takes.
pub fn steps(spans: &[Span]) -> Vec<Vec<Span>> {
    steps_of(spans, STEP, MAX_PIECES)
}

/// Cuts a set into steps of at most so many bytes and pieces.
pub fn steps_of(spans: &[Span], bytes: u64, pieces: usize) -> Vec<Vec<Span>> {
    let mut steps: Vec<Vec<Span>> = Vec::new();
    let mut room = 0;
    for span in spans {
        let mut rest = *span;
        while rest.bytes() > 0 {
            match steps.last() {
                Some(step) if room > 0 && step.len() < pieces => {}
                _ => {
                    steps.push(Vec::new());
                    room = bytes;
                }
            }
            let piece = Span::new(rest.start, rest.start + rest.bytes().min(room));
            room -= piece.bytes();
            rest.start = piece.end;
            if let Some(step) = steps.last_mut() {
                step.push(piece);
            }
        }
    }
    steps
}

/// Cuts a set at the multiples of `size` bytes.
pub fn cut(spans: &[Span], size: u64) -> Vec<Span> {
    let mut pieces = Vec::new();
    for span in spans {
        let mut start = span.start;
        while start < span.end {
            let end = (start / size + 1).saturating_mul(size).min(span.end);
            pieces.push(Span::new(start, end));
            start = end;
        }
    }
    pieces
}

/// The leading part of a set, `bytes` long at most.
pub fn first(spans: &[Span], bytes: u64) -> Vec<Span> {
    let mut room = bytes;
    let mut head = Vec::new();
    for span in spans {
        let piece = Span::new(span.start, span.start + span.bytes().min(room));
        if piece.bytes() == 0 {
            break;
        }
        room -= piece.bytes();
        head.push(piece);
    }
    head
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const PAGE: u64 = 4096;

    fn pages(spans: &[Span]) -> BTreeSet<u64> {
        spans.iter().flat_map(|s| s.start / PAGE..s.end / PAGE).collect()
    }

    fn any_set() -> impl Strategy<Value = Vec<Span>> {
        prop::collection::vec((0u64..300, 0u64..40), 0..20)
            .prop_map(|v| v.into_iter().map(|(at, len)| Span::new(at * PAGE, (at + len) * PAGE)).collect())
    }

    fn well_formed(spans: &[Span]) -> bool {
        spans.iter().all(|s| s.bytes() > 0) && spans.windows(2).all(|w| w[0].end < w[1].start)
    }

    proptest! {
        #[test]
        fn joining_keeps_the_pages(spans in any_set()) {
            let set = joined(spans.clone(), 0);
            prop_assert!(well_formed(&set));
            prop_assert_eq!(pages(&set), pages(&spans));
        }

        #[test]
        fn joining_over_gaps_only_adds_gaps(spans in any_set(), gap in 0u64..8) {
            let tight = joined(spans.clone(), 0);
            let wide = joined(spans, gap * PAGE);
            prop_assert!(pages(&tight).is_subset(&pages(&wide)));
            prop_assert!(wide.windows(2).all(|w| w[1].start - w[0].end > gap * PAGE));
        }

        #[test]
        fn set_algebra_is_that_of_pages(a in any_set(), b in any_set()) {
            let (a, b) = (joined(a, 0), joined(b, 0));
            let (pa, pb) = (pages(&a), pages(&b));
            prop_assert_eq!(pages(&union(&a, &b)), &pa | &pb);
            prop_assert_eq!(pages(&intersection(&a, &b)), &pa & &pb);
            prop_assert_eq!(pages(&difference(&a, &b)), &pa - &pb);
        }

        #[test]
        fn steps_cover_all_once_and_stay_small(starts in prop::collection::vec((0u64..9, 1u64..1500), 0..12)) {
            let mut at = 0;
            let set: Vec<Span> = starts.into_iter().map(|(gap, len)| {
                let span = Span::new(at + (gap + 1) * PAGE, at + (gap + 1 + len) * PAGE);
                at = span.end;
                span
            }).collect();
            let steps = steps(&set);
            prop_assert!(steps.iter().all(|s| total(s) <= STEP && s.len() <= MAX_PIECES && !s.is_empty()));
            prop_assert_eq!(pages(&steps.concat()), pages(&set));
            prop_assert_eq!(total(&steps.concat()), total(&set));
        }

        #[test]
        fn a_cut_set_keeps_its_pages_and_no_piece_covers_a_multiple(a in any_set(), pages_each in 1u64..40) {
            let (a, size) = (joined(a, 0), pages_each * PAGE);
            let pieces = cut(&a, size);
            prop_assert!(pieces.iter().all(|p| p.bytes() > 0 && p.start / size == (p.end - 1) / size));
            prop_assert_eq!(total(&pieces), total(&a));
            prop_assert_eq!(pages(&pieces), pages(&a));
        }

        #[test]
        fn first_is_a_prefix(a in any_set(), len in 0u64..400) {
            let a = joined(a, 0);
            let head = first(&a, len * PAGE);
            prop_assert_eq!(total(&head), total(&a).min(len * PAGE));
            prop_assert!(pages(&head).iter().zip(pages(&a)).all(|(x, y)| *x == y));
        }
    }

    #[test]
    fn many_single_pages_are_cut_by_pieces() {
        let set: Vec<Span> = (0..3000).map(|i| Span::new(i * 2 * PAGE, (i * 2 + 1) * PAGE)).collect();
        assert!(steps(&set).iter().all(|s| s.len() <= 512), "2 MiB are 512 pages of 4 KiB");
    }
}
