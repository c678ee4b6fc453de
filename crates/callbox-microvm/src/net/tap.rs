//! A tap device: the other end of a machine's network card.

use std::ffi::{c_int, c_void};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;

use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, ioctl, opcode};

/// The door to the kernel's tap devices.
pub const DEVICE: &str = "/dev/net/tun";

const IFF_TAP: i16 = 0x0002;
/// Frames only, without a header of the kernel's.
const IFF_NO_PI: i16 = 0x1000;

/// Makes the device `name` in the network namespace of the calling thread. It lives as long as
/// the descriptor, and the descriptor keeps its namespace alive, wherever it is passed.
///
/// There is no header for offloads (`IFF_VNET_HDR`): a call's traffic needs none, it is the same
/// for a machine behind passt, so that one template serves both, and the kernel parses nothing
/// of a guest but frames.
///
/// # Errors
/// Without the device's door or the right to pass it.
pub fn open(name: &str) -> io::Result<OwnedFd> {
    let file = OpenOptions::new().read(true).write(true).open(DEVICE)?;
    let mut request = Request { name: [0; 16], flags: IFF_TAP | IFF_NO_PI, rest: [0; 22] };
    let longest = request.name.len() - 1;
    for (to, from) in request.name[..longest].iter_mut().zip(name.bytes()) {
        *to = from;
    }
    set(&file, request)?;
    Ok(file.into())
}

/// `struct ifreq`, as far as `TUNSETIFF` looks at it.
#[repr(C)]
struct Request {
    name: [u8; 16],
    flags: i16,
    rest: [u8; 22],
}

/// rustix knows the form of the call, but not this one's number and argument.
#[allow(unsafe_code)]
fn set(file: &File, request: Request) -> io::Result<()> {
    // SAFETY: see the implementation below; the descriptor is open, as `file` owns it.
    unsafe { ioctl(file, request) }.map_err(io::Error::from)
}

/// `TUNSETIFF`: the kernel's headers declare its argument as `int`, and take a `struct ifreq`.
#[allow(unsafe_code)]
// SAFETY: `TUNSETIFF` reads and writes one `struct ifreq` of 40 bytes at the pointer. `Request`
// has that size and layout (`repr(C)`), is valid for any bytes in it, and is borrowed mutably for
// the time of the call. There is no output beside it.
unsafe impl Ioctl for Request {
    type Output = ();
    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        opcode::write::<c_int>(b'T', 202)
    }

    fn as_ptr(&mut self) -> *mut c_void {
        std::ptr::from_mut(self).cast()
    }

    unsafe fn output_from_ptr(_: IoctlOutput, _: *mut c_void) -> rustix::io::Result<()> {
        Ok(())
    }
}

const _: () = assert!(size_of::<Request>() == 40);
