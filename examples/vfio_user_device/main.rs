//! A PCI device served by a process of its own over a vfio-user socket: a DMA engine with a doorbell and MSI-X. Needs no hardware.
//!
//!     vfio_user_device /run/engine.sock &
//!     vmm run --name a --cpus 1 --memory 256M --kernel bzImage --device unix:/run/engine.sock

mod engine;
mod function;

use std::error::Error;
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::Path;

use engine::Engine;
use vfio_user::Server;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os()
        .nth(1)
        .ok_or("usage: vfio_user_device SOCKET")?;
    let path = Path::new(&path);
    // Left by one that was killed: nobody listens there any more.
    if UnixStream::connect(path).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused) {
        std::fs::remove_file(path)?;
    }
    let mut engine = Engine::new()?;
    let server = Server::new(
        path,
        true,
        function::interrupts(),
        function::regions(engine.memory()),
    )?;
    println!("serving {}", path.display());
    // One guest after another; each finds the engine as a reset leaves it.
    loop {
        match server.run(&mut engine) {
            Err(error @ vfio_user::Error::SocketAccept(_)) => return Err(error.into()),
            Err(error) => eprintln!("a guest left in the middle of a message: {error}"),
            Ok(()) => {}
        }
        engine.disconnect();
    }
}
