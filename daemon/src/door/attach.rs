//! Where the door is attached. A tcx link is pinned, so that it outlives the daemon and a restarted one puts
//! its new program into the same link, without a gap. A clsact filter outlives its process by itself.

use std::{
    fs, io,
    num::NonZeroU32,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use aya::programs::{
    CgroupAttachMode, CgroupSkbAttachType, LinkOrder, SchedClassifier, TcAttachType,
    links::{FdLink, LinkError, PinnedLink},
    tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle},
};

use super::{Door, DoorError, object::TcHook};
use crate::{
    discover::link,
    failpoint,
    undo::{self, Change, Direction},
};

/// Our filters' place on a clsact qdisc: before everybody who takes the kernel's default (49152).
pub const CLSACT_PRIORITY: u16 = 1;
/// Names our filter among others of that priority.
const CLSACT_HANDLE: TcHandle = TcHandle::new(0, CLSACT_HANDLE_NUMBER.get() as u16);
const CLSACT_HANDLE_NUMBER: NonZeroU32 = NonZeroU32::new(0xd0).unwrap();

/// A veth's host end that has the door on both directions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    pub ifindex: u32,
    pub interface: String,
    /// The link pins (tcx), in the order of the sides; empty on clsact.
    pub pins: Vec<PathBuf>,
    /// There is no clsact qdisc yet: ours will be it.
    adds_clsact: bool,
}

impl Attachment {
    /// What the undo log must know of it, in the order in which it is put back by [`Door::detach`].
    pub fn changes(&self) -> Vec<Change> {
        if !self.pins.is_empty() {
            return self.pins.iter().map(|path| Change::Pin { path: path.clone() }).collect();
        }
        let (interface, ifindex) = (self.interface.clone(), self.ifindex);
        let mut changes = [Direction::Egress, Direction::Ingress]
            .map(|direction| Change::Filter {
                interface: interface.clone(),
                ifindex,
                direction,
                priority: CLSACT_PRIORITY,
                handle: CLSACT_HANDLE_NUMBER,
            })
            .to_vec();
        if self.adds_clsact {
            changes.push(Change::Clsact { interface, ifindex });
        }
        changes
    }
}

/// The two programs of a veth: what they are called, where they go.
const SIDES: [(&str, TcAttachType); 2] = [("door", TcAttachType::Egress), ("answer", TcAttachType::Ingress)];

impl Door {
    /// Where the door goes on a veth's host end. Nothing is changed yet: [`Attachment::changes`] go into the undo
    /// log first.
    ///
    /// # Errors
    /// The interface is gone, or its qdiscs can't be listed.
    pub fn plan(&self, ifindex: u32) -> Result<Attachment, DoorError> {
        let interface = link::name_of(ifindex).map_err(|source| DoorError::Interface { ifindex, source })?;
        let links = self.links_dir();
        let pin = |(name, _): (&str, _)| links.join(format!("{ifindex}-{name}"));
        let (pins, adds_clsact) = match self.hook() {
            TcHook::Tcx => (SIDES.map(pin).to_vec(), false),
            TcHook::Clsact => {
                let has = undo::has_clsact(&interface, ifindex).map_err(|source| DoorError::Attach {
                    interface: interface.clone(),
                    source: source.into(),
                })?;
                (vec![], !has)
            }
        };
        Ok(Attachment { ifindex, interface, pins, adds_clsact })
    }

    /// Puts the door on a veth's host end; adopts the links of an earlier daemon if they are still there.
    ///
    /// # Errors
    /// [`DoorError::Attach`] names the interface and what the kernel said.
    pub fn attach(&mut self, attachment: &Attachment) -> Result<(), DoorError> {
        let interface = &attachment.interface;
        let wrap = |source: BoxError| DoorError::Attach { interface: interface.clone(), source };
        fs::create_dir_all(self.links_dir()).map_err(|error| wrap(error.into()))?;
        for (index, (name, direction)) in SIDES.into_iter().enumerate() {
            let program = self.program(name)?;
            match attachment.pins.get(index) {
                Some(pin) => attach_tcx(program, interface, direction, pin).map_err(wrap)?,
                None => attach_clsact(program, interface, direction).map_err(wrap)?,
            }
        }
        Ok(())
    }

    /// Takes the door off again, whoever else holds its links open: what was noted is put back. An interface
    /// that is gone took it along.
    ///
    /// # Errors
    /// What the kernel or bpffs said.
    pub fn detach(&mut self, attachment: &Attachment) -> Result<(), DoorError> {
        for change in attachment.changes() {
            change.put_back().map_err(|source| DoorError::Attach {
                interface: attachment.interface.clone(),
                source: source.into(),
            })?;
        }
        Ok(())
    }

    /// Where the link of [`Door::attach_cgroup`] will be pinned.
    ///
    /// # Errors
    /// [`DoorError::Cgroup`].
    pub fn cgroup_pin(&self, path: &Path) -> Result<PathBuf, DoorError> {
        let cgroup = fs::metadata(path)
            .map_err(|error| DoorError::Cgroup { path: path.to_owned(), source: error.into() })?;
        Ok(self.links_dir().join(format!("cgroup-{}", cgroup.ino())))
    }

    /// Watches the sockets of a cgroup, for roads that cross no veth.
    ///
    /// # Errors
    /// [`DoorError::Cgroup`].
    pub fn attach_cgroup(&mut self, path: &Path, pin: &Path) -> Result<(), DoorError> {
        let wrap = |source: BoxError| DoorError::Cgroup { path: path.to_owned(), source };
        let cgroup = fs::File::open(path).map_err(|error| wrap(error.into()))?;
        fs::create_dir_all(self.links_dir()).map_err(|error| wrap(error.into()))?;
        let program = self.loopback_program()?;
        // An old link holds an old program; the new one stands beside it before that goes.
        // `Single` is flags 0: a link is one of several in any case, and the kernel refuses flags with it
        // (cgroup_bpf_link_attach, Linux 5.7).
        let link = program
            .attach(cgroup, CgroupSkbAttachType::Ingress, CgroupAttachMode::Single)
            .and_then(|id| program.take_link(id))
            .map_err(|error| wrap(error.into()))?;
        let link: FdLink = link.try_into().map_err(|error: LinkError| wrap(error.into()))?;
        failpoint::at("cgroup-linked");
        // A kill between taking the old pin away and pinning the new link would leave a sleeper whom nobody
        // hears knocking: the new one takes the old one's place in one step.
        let mut new = pin.to_owned().into_os_string();
        // bpffs keeps names with a dot for itself (bpf_lookup, kernel/bpf/inode.c).
        new.push("-new");
        let new = PathBuf::from(new);
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(wrap(error.into())),
            _ => {}
        }
        link.pin(&new).map_err(|error| wrap(error.into()))?;
        failpoint::at("cgroup-pinned");
        fs::rename(&new, pin).map_err(|error| wrap(error.into()))?;
        failpoint::at("cgroup-replaced");
        Ok(())
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

fn attach_tcx(
    program: &mut SchedClassifier,
    interface: &str,
    direction: TcAttachType,
    pin: &Path,
) -> Result<(), BoxError> {
    if let Some(old) = pinned(pin)? {
        let link = SchedClassifierLink::try_from(FdLink::from(old))?;
        if let Ok(id) = program.attach_to_link(link) {
            // The pin still holds the link; ours may go.
            drop(program.take_link(id)?);
            return Ok(());
        }
        // The interface it was on is gone (ENOLINK): the number was given to another one.
        fs::remove_file(pin)?;
    }
    let id =
        program.attach_with_options(interface, direction, TcAttachOptions::TcxOrder(LinkOrder::first()))?;
    let link: FdLink = program.take_link(id)?.try_into()?;
    failpoint::at("attach-linked");
    link.pin(pin)?;
    failpoint::at("attach-pinned");
    Ok(())
}

fn pinned(pin: &Path) -> Result<Option<PinnedLink>, LinkError> {
    if pin.exists() { PinnedLink::from_pin(pin).map(Some) } else { Ok(None) }
}

fn attach_clsact(
    program: &mut SchedClassifier,
    interface: &str,
    direction: TcAttachType,
) -> Result<(), BoxError> {
    match tc::qdisc_add_clsact(interface) {
        Ok(()) | Err(TcError::AlreadyAttached) => {}
        Err(TcError::NetlinkError(_)) => {} // EEXIST: somebody's clsact is there; a real fault shows below
        Err(error) => return Err(error.into()),
    }
    let options = NlOptions { priority: CLSACT_PRIORITY, handle: CLSACT_HANDLE, ..NlOptions::default() };
    let id = if let Ok(id) =
        program.attach_with_options(interface, direction, TcAttachOptions::Netlink(options))
    {
        id
    } else {
        // An earlier daemon's filter holds the place: replace its program.
        let old = SchedClassifierLink::attached(interface, direction, CLSACT_PRIORITY, CLSACT_HANDLE, None)?;
        program.attach_to_link(old)?
    };
    // The filter must outlive this process.
    std::mem::forget(program.take_link(id)?);
    Ok(())
}
