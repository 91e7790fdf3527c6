//! Takes a connection out of an event loop, so that another can serve it.

use std::net::TcpStream;
use std::os::fd::{FromRawFd, IntoRawFd};

/// The socket of a connection of this thread's event loop, which no operation may be waiting on.
#[expect(
    unsafe_code,
    reason = "monoio gives a socket out as a number only; a duplicate of it would cost a system call and a descriptor"
)]
pub fn into_std(stream: monoio::net::TcpStream) -> TcpStream {
    // SAFETY: `into_raw_fd` gives up the socket, which is open: it panics if an operation still holds it. So the new
    // owner is the only one.
    unsafe { TcpStream::from_raw_fd(stream.into_raw_fd()) }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use monoio::io::AsyncReadRent;

    use super::*;
    use crate::os::io_driver::{self, IoChoice, IoDriver};

    #[test]
    fn a_connection_goes_from_one_event_loop_to_another() {
        let chosen = io_driver::choose(IoChoice::Auto, false).unwrap();
        for driver in [chosen, IoDriver::Epoll] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_nonblocking(driver == IoDriver::Epoll).unwrap();
            for byte in [1, 2, 3] {
                peer.write_all(&[byte]).unwrap();
                let (done, result) = std::sync::mpsc::channel();
                let serve = async move {
                    let mut stream = monoio::net::TcpStream::from_std(stream)?;
                    stream.readable(true).await?;
                    let (read, bytes) = stream.read(vec![0; 8]).await;
                    done.send((bytes[..read?].to_vec(), into_std(stream)))
                        .unwrap();
                    Ok(())
                };
                driver.block_on(serve).unwrap();
                let (read, back) = result.recv().unwrap();
                assert_eq!(read, [byte]);
                stream = back;
            }
            drop(stream);
            assert_eq!(peer.read(&mut [0; 8]).unwrap(), 0, "{driver}");
        }
    }
}
