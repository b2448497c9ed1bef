//! Other people's programs on the hooks beside the door, as few instructions as they need.

use std::{
    io,
    net::Ipv4Addr,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use aya::programs::{SchedClassifier, TcAttachType, links::FdLink, tc::TcAttachOptions};

use crate::{netns::Netns, owner};

/// A loaded TC program; its pin goes with it.
pub struct Program {
    pin: PathBuf,
    fd: OwnedFd,
}

/// A program's place on an interface; it is taken off on drop.
pub struct Attached(#[expect(dead_code, reason = "held, not read")] FdLink);

/// Where [`redirect`] sends what is for one address.
#[derive(Clone, Copy, Debug)]
pub enum Way {
    /// `bpf_redirect`: out of an interface.
    Out,
    /// `bpf_redirect_peer`: straight into the other end of a veth, past everything at this end.
    Peer,
}

/// Passes everything on, and is counted by the kernel.
///
/// # Errors
/// The kernel refuses it.
pub fn counter() -> Result<Program> {
    Program::load(&[MOV_R0_NEXT, EXIT])
}

/// Sends IPv4 packets for `to` to the interface (a number in its own namespace), with these link addresses.
///
/// # Errors
/// The kernel refuses it.
pub fn redirect(way: Way, to: Ipv4Addr, interface: u32, macs: [[u8; 6]; 2]) -> Result<Program> {
    let m = macs.concat();
    let word = |at: usize| i32::from_ne_bytes([m[at], m[at + 1], m[at + 2], m[at + 3]]);
    let helper = match way {
        Way::Out => 23,
        Way::Peer => 155,
    };
    Program::load(&[
        insn(0xbf, 6, 1, 0, 0),                            // r6 = the packet
        insn(0x28, 0, 0, 0, 12),                           // r0 = its EtherType
        insn(0x56, 0, 0, 16, 0x0800),                      // no IPv4: pass
        insn(0x20, 0, 0, 0, 30),                           // r0 = where it goes
        insn(0x56, 0, 0, 14, u32::from(to).cast_signed()), // another: pass
        insn(0x62, 10, 0, -16, word(0)),                   // the link addresses, on the stack
        insn(0x62, 10, 0, -12, word(4)),
        insn(0x62, 10, 0, -8, word(8)),
        insn(0xbf, 1, 6, 0, 0),
        insn(0xb7, 2, 0, 0, 0),
        insn(0xbf, 3, 10, 0, 0),
        insn(0x07, 3, 0, 0, -16),
        insn(0xb7, 4, 0, 0, 12),
        insn(0xb7, 5, 0, 0, 0),
        insn(0x85, 0, 0, 0, 9), // bpf_skb_store_bytes
        insn(0xb7, 1, 0, 0, interface.cast_signed()),
        insn(0xb7, 2, 0, 0, 0),
        insn(0x85, 0, 0, 0, helper),
        EXIT,
        MOV_R0_NEXT,
        EXIT,
    ])
}

/// `struct bpf_insn` (include/uapi/linux/bpf.h).
#[derive(Clone, Copy)]
#[repr(C)]
struct Insn {
    code: u8,
    registers: u8,
    offset: i16,
    imm: i32,
}

const fn insn(code: u8, to: u8, from: u8, offset: i16, imm: i32) -> Insn {
    Insn { code, registers: from << 4 | to, offset, imm }
}

/// `TCX_NEXT`, which clsact calls `TC_ACT_UNSPEC`.
const MOV_R0_NEXT: Insn = insn(0xb7, 0, 0, 0, -1);
const EXIT: Insn = insn(0x95, 0, 0, 0, 0);

impl Program {
    fn load(insns: &[Insn]) -> Result<Self> {
        const BPF_PROG_LOAD: libc::c_int = 5;
        const SCHED_CLS: u32 = 3;
        /// The first fields of `union bpf_attr` for this command; the kernel takes the rest for zeroes.
        #[repr(C)]
        struct Attr {
            kind: u32,
            count: u32,
            insns: u64,
            license: u64,
        }
        let attr = Attr {
            kind: SCHED_CLS,
            count: insns.len() as u32,
            insns: insns.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
        };
        // SAFETY: the pointers in `attr` are to `count` instructions and to a NUL-terminated string, alive for the call.
        let fd = unsafe {
            let fd = libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const attr, size_of::<Attr>());
            ensure!(fd >= 0, "load a program: {}", io::Error::last_os_error());
            OwnedFd::from_raw_fd(fd as i32)
        };
        let pin = Path::new("/sys/fs/bpf").join(owner::unique("program"));
        let program = Self { pin, fd };
        program.pin_it()?;
        Ok(program)
    }

    fn pin_it(&self) -> Result<()> {
        const BPF_OBJ_PIN: libc::c_int = 6;
        #[repr(C)]
        struct Attr {
            path: u64,
            fd: u32,
            flags: u32,
        }
        let path = std::ffi::CString::new(self.pin.to_string_lossy().as_bytes())?;
        let attr = Attr { path: path.as_ptr() as u64, fd: self.fd.as_raw_fd().cast_unsigned(), flags: 0 };
        // SAFETY: the pointer in `attr` is to a NUL-terminated string, alive for the call.
        let done = unsafe { libc::syscall(libc::SYS_bpf, BPF_OBJ_PIN, &raw const attr, size_of::<Attr>()) };
        ensure!(done == 0, "pin {}: {}", self.pin.display(), io::Error::last_os_error());
        Ok(())
    }

    pub fn pin(&self) -> &Path {
        &self.pin
    }

    /// Puts it at the end of the chain on an interface (tcx, Linux 6.6).
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn attach(&self, netns: &Netns, interface: &str, side: TcAttachType) -> Result<Attached> {
        netns.run(|| {
            let mut program = SchedClassifier::from_pin(&self.pin)?;
            let order = TcAttachOptions::TcxOrder(aya::programs::LinkOrder::last());
            let id = program.attach_with_options(interface, side, order)?;
            Ok(Attached(program.take_link(id)?.try_into()?))
        })
    }

    /// How often it ran since `kernel.bpf_stats_enabled` was set.
    ///
    /// # Errors
    /// The kernel doesn't say.
    pub fn runs(&self) -> Result<u64> {
        let program = SchedClassifier::from_pin(&self.pin).context("open the pinned program")?;
        Ok(program.info()?.run_count())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.pin);
    }
}
