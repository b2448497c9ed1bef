//! The door's arrays, memory-mapped read-only from their pins.

use std::{
    mem::offset_of,
    num::NonZeroUsize,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use aya::maps::{MapData, MapError, MapType};
use dormouse_abi::{node, server::ServerState};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use super::{pins_of, watch::Reading};
use crate::door::layout;

#[derive(Debug, thiserror::Error)]
pub enum PinError {
    #[error("cannot open the pinned map {}", path.display())]
    Open {
        path: PathBuf,
        #[source]
        source: MapError,
    },
    #[error("the pinned map {} is not the array it should be; daemon and guard are of different releases", path.display())]
    WrongShape { path: PathBuf },
    #[error("cannot map {} into memory", path.display())]
    Mmap {
        path: PathBuf,
        #[source]
        source: nix::Error,
    },
}

/// What the guard reads of the door.
#[derive(Debug)]
pub struct Pins {
    node: MappedArray,
    /// `None`: of a daemon with another layout of the maps. Its heartbeat can be read ([`dormouse_abi::node`]
    /// promises that), and nothing else.
    states: Option<MappedArray>,
}

// === impl Pins ===

impl Pins {
    /// The pins of the daemon whose heartbeat is the latest: a daemon may be of the release before or after
    /// the guard's, and must not be taken for dead.
    pub fn open(pin_dir: &Path) -> Result<Self, PinError> {
        let own = Self::of_own_layout(&pins_of(pin_dir));
        let others = layout::others(pin_dir).unwrap_or_default();
        let others = others.iter().filter_map(|folder| Self::of_other_layout(folder).ok());
        match own {
            Err(error) => others.max_by_key(Self::heartbeat_ns).ok_or(error),
            // Of two equal ones the last: ours, of which more can be read.
            Ok(own) => Ok(others.chain([own]).max_by_key(Self::heartbeat_ns).expect("ours is among them")),
        }
    }

    fn of_own_layout(pins: &Path) -> Result<Self, PinError> {
        Ok(Self {
            node: MappedArray::open(pins.join("NODE"), size_of::<u64>(), node::LEN)?,
            states: Some(MappedArray::open(pins.join("STATES"), size_of::<ServerState>(), 1)?),
        })
    }

    fn of_other_layout(pins: &Path) -> Result<Self, PinError> {
        let node = MappedArray::open(pins.join("NODE"), size_of::<u64>(), node::GUARD_LIMIT_NS + 1)?;
        Ok(Self { node, states: None })
    }

    fn heartbeat_ns(&self) -> u64 {
        self.node.load(node::HEARTBEAT_NS, 0).unwrap_or(0)
    }

    pub(super) fn reading(&self) -> Reading {
        let value = |index| self.node.load(index, 0).unwrap_or(0);
        let time = |index| match value(index) {
            0 => None,
            ns => Some(Duration::from_nanos(ns)),
        };
        Reading::Heartbeat {
            ns: value(node::HEARTBEAT_NS),
            stale_after: time(node::STALE_AFTER_NS),
            guard_limit: time(node::GUARD_LIMIT_NS),
        }
    }

    /// Whether somebody asked for the server of this slot; a slot that the door does not have counts as asked
    /// for, since nobody could tell.
    pub fn is_knocked_on(&self, slot: u32) -> bool {
        let flag =
            self.states.as_ref().and_then(|states| states.load(slot, offset_of!(ServerState, wake_ns)));
        flag != Some(0)
    }
}

// === impl MappedArray ===

/// A `BPF_F_MMAPABLE` array of values that are made of u64.
#[derive(Debug)]
struct MappedArray {
    start: NonNull<AtomicU64>,
    length: NonZeroUsize,
    value_size: usize,
    entries: u32,
}

impl MappedArray {
    fn open(path: PathBuf, value_size: usize, least_entries: u32) -> Result<Self, PinError> {
        let open = || {
            let map = MapData::from_pin(&path)?;
            let info = map.info()?;
            let kind = info.map_type()?;
            Ok((map, kind, info.value_size() as usize, info.max_entries()))
        };
        let (map, kind, found_size, entries) =
            open().map_err(|source| PinError::Open { path: path.clone(), source })?;
        let length = NonZeroUsize::new(found_size * entries as usize);
        let (MapType::Array, Some(length)) = (kind, length) else {
            return Err(PinError::WrongShape { path });
        };
        if found_size != value_size || !value_size.is_multiple_of(size_of::<u64>()) || entries < least_entries
        {
            return Err(PinError::WrongShape { path });
        }
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing; it keeps the map alive.
        let mapped =
            unsafe { mmap(None, length, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, map.fd().as_fd(), 0) };
        let start = mapped.map_err(|source| PinError::Mmap { path, source })?.cast();
        Ok(Self { start, length, value_size, entries })
    }

    /// The u64 at a byte offset in an entry; `None` outside the array.
    fn load(&self, index: u32, offset: usize) -> Option<u64> {
        if index >= self.entries || offset + size_of::<u64>() > self.value_size {
            return None;
        }
        let words = (index as usize * self.value_size + offset) / size_of::<u64>();
        // SAFETY: `words` is inside the mapping (checked above against the map's own size, and offsets are
        // multiples of eight), which is page-aligned and lives as long as `self`. Everybody else who writes
        // there writes whole aligned words, and a relaxed load of a u64 needs no write access.
        Some(unsafe { self.start.add(words).as_ref() }.load(Ordering::Relaxed))
    }
}

impl Drop for MappedArray {
    fn drop(&mut self) {
        // SAFETY: the mapping was made in `open`, and no reference into it outlives `load`.
        let unmapped = unsafe { munmap(self.start.cast(), self.length.get()) };
        debug_assert_eq!(unmapped, Ok(()));
    }
}
