//! Open files that travel with a text from one process to another (`SCM_RIGHTS`).

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{BorrowedFd, OwnedFd},
    os::unix::net::UnixStream,
};

use rustix::{
    cmsg_space,
    io::Errno,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
    },
};
use tokio::io::{AsyncWriteExt as _, Interest};

/// Sends both, the descriptors with the first bytes, and ends the stream.
pub(super) async fn send(
    mut stream: tokio::net::UnixStream,
    text: &[u8],
    descriptors: [BorrowedFd<'_>; 2],
) -> io::Result<()> {
    let sent = stream.async_io(Interest::WRITABLE, || {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(2))];
        let mut with = SendAncillaryBuffer::new(&mut space);
        with.push(SendAncillaryMessage::ScmRights(&descriptors));
        let flags = SendFlags::NOSIGNAL;
        sendmsg(&stream, &[IoSlice::new(text)], &mut with, flags).map_err(io::Error::from)
    });
    let sent = sent.await?;
    stream.write_all(&text[sent..]).await?;
    stream.shutdown().await
}

/// Receives what [`send`] sent, to its end. Waits for it, so this is not for a runtime.
pub(super) fn receive(stream: &UnixStream) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let (mut text, mut descriptors) = (Vec::new(), Vec::new());
    let mut chunk = [0; 16 * 1024];
    loop {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(2))];
        let mut with = RecvAncillaryBuffer::new(&mut space);
        let into = &mut [IoSliceMut::new(&mut chunk)];
        let received = match recvmsg(stream, into, &mut with, RecvFlags::CMSG_CLOEXEC) {
            Ok(received) => received.bytes,
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        for message in with.drain() {
            if let RecvAncillaryMessage::ScmRights(came) = message {
                descriptors.extend(came);
            }
        }
        if received == 0 {
            return Ok((text, descriptors));
        }
        text.extend_from_slice(&chunk[..received]);
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read as _, io::Write as _, os::fd::AsFd as _};

    use super::*;

    #[tokio::test]
    async fn a_long_text_and_two_descriptors_arrive() {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let (one, mut other) = UnixStream::pair().expect("a pair");
        ours.set_nonblocking(true).expect("set");
        let receiving = tokio::task::spawn_blocking(move || receive(&theirs));
        let text = vec![b'x'; 600_000];
        let ours = tokio::net::UnixStream::from_std(ours).expect("in a runtime");
        send(ours, &text, [one.as_fd(), one.as_fd()]).await.expect("sent");
        drop(one);
        let (came, descriptors) = receiving.await.expect("no panic").expect("received");
        assert!(came == text);
        assert_eq!(descriptors.len(), 2);
        for descriptor in descriptors {
            UnixStream::from(descriptor).write_all(b"y").expect("it is the same");
        }
        let mut heard = String::new();
        other.read_to_string(&mut heard).expect("all copies are closed");
        assert_eq!(heard, "yy");
    }
}
