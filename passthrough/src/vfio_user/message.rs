//! vfio-user messages as bytes: what a request looks like, and whether an answer is one to it. Pure; nothing received is believed.

use std::io;
use std::ops::RangeInclusive;

/// What a client asks (`vfio-user` 0.1, the command numbers).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum Command {
    Version = 1,
    DmaMap = 2,
    DmaUnmap = 3,
    DeviceInfo = 4,
    RegionInfo = 5,
    IrqInfo = 7,
    SetIrqs = 8,
    RegionRead = 9,
    RegionWrite = 10,
    Reset = 13,
}

impl Command {
    /// Its name in the specification.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Command::Version => "VERSION",
            Command::DmaMap => "DMA_MAP",
            Command::DmaUnmap => "DMA_UNMAP",
            Command::DeviceInfo => "DEVICE_GET_INFO",
            Command::RegionInfo => "DEVICE_GET_REGION_INFO",
            Command::IrqInfo => "DEVICE_GET_IRQ_INFO",
            Command::SetIrqs => "DEVICE_SET_IRQS",
            Command::RegionRead => "REGION_READ",
            Command::RegionWrite => "REGION_WRITE",
            Command::Reset => "DEVICE_RESET",
        }
    }
}

/// Bytes of a message that are put together from numbers, in the host's order as the protocol has it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Payload(pub(crate) Vec<u8>);

impl Payload {
    pub(crate) fn u16(mut self, value: u16) -> Payload {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub(crate) fn u32(mut self, value: u32) -> Payload {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub(crate) fn u64(mut self, value: u64) -> Payload {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Payload {
        self.0.extend_from_slice(bytes);
        self
    }
}

/// A 16-bit number of an answer; 0 behind its end.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    let two = at.checked_add(2).and_then(|end| bytes.get(at..end));
    two.map_or(0, |two| u16::from_le_bytes([two[0], two[1]]))
}

/// A 32-bit number of an answer; 0 behind its end.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at.saturating_add(2))) << 16
}

/// A 64-bit number of an answer; 0 behind its end.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at.saturating_add(4))) << 32
}

/// The header of a request with a payload of that many bytes.
pub(crate) fn request(id: u16, command: Command, payload: usize) -> Vec<u8> {
    let size = (HEADER + payload) as u32;
    Payload::default()
        .u16(id)
        .u16(command as u16)
        .u32(size)
        .u32(TYPE_COMMAND)
        .u32(0)
        .0
}

/// What follows the header of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// This many bytes of payload.
    Payload(usize),
    /// A refusal with its number, and this many bytes that mean nothing.
    Refusal(u32, usize),
}

/// Whether `header` begins the answer to request `id`, with a payload as long as it may be.
pub(crate) fn answer(
    header: &[u8; HEADER],
    id: u16,
    command: Command,
    payload: &RangeInclusive<usize>,
) -> Result<Answer, String> {
    let (its_id, its_command) = (u16_at(header, 0), u16_at(header, 2));
    let (size, flags, error) = (u32_at(header, 4), u32_at(header, 8), u32_at(header, 12));
    if flags & TYPE != TYPE_REPLY {
        return Err(format!(
            "a message of type {} came where a reply is due",
            flags & TYPE
        ));
    }
    if its_command != command as u16 {
        return Err(format!("it answers command {its_command}"));
    }
    if its_id != id {
        return Err(format!("it answers message {its_id}, and {id} was asked"));
    }
    let length = (size as usize)
        .checked_sub(HEADER)
        .ok_or_else(|| format!("a size of {size} bytes has no room for the header"))?;
    let refused = flags & FLAG_ERROR != 0;
    let least = if refused { 0 } else { *payload.start() };
    if !(least..=*payload.end()).contains(&length) {
        let most = payload.end() + HEADER;
        return Err(format!(
            "it has {size} bytes instead of {} to {most}",
            least + HEADER
        ));
    }
    Ok(if refused {
        Answer::Refusal(error, length)
    } else {
        Answer::Payload(length)
    })
}

/// A refusal's number as an error; a server may send any number, also none.
pub(crate) fn errno(number: u32) -> io::Error {
    match i32::try_from(number) {
        Ok(errno @ 1..=MAX_ERRNO) => io::Error::from_raw_os_error(errno),
        _ => io::Error::other(format!("error number {number}, which means nothing")),
    }
}

/// Bytes of a header.
pub(crate) const HEADER: usize = 16;
const TYPE: u32 = 0xf;
const TYPE_COMMAND: u32 = 0;
const TYPE_REPLY: u32 = 1;
const FLAG_ERROR: u32 = 1 << 5;
/// `MAX_ERRNO` of the kernel's include/linux/err.h.
const MAX_ERRNO: i32 = 4095;

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(id: u16, command: u16, size: u32, flags: u32) -> [u8; HEADER] {
        let header = Payload::default()
            .u16(id)
            .u16(command)
            .u32(size)
            .u32(flags)
            .u32(22);
        header.0.try_into().unwrap()
    }

    #[test]
    fn an_answer_is_to_the_request_and_as_long_as_it_may_be() {
        let judge = |header: [u8; HEADER]| answer(&header, 7, Command::Reset, &(0..=8));
        assert_eq!(judge(reply(7, 13, 20, 1)), Ok(Answer::Payload(4)));
        assert_eq!(judge(reply(7, 13, 16, 0x21)), Ok(Answer::Refusal(22, 0)));
        for (header, what) in [
            (reply(6, 13, 16, 1), "message 6"),
            (reply(7, 12, 16, 1), "command 12"),
            (reply(7, 13, 15, 1), "no room"),
            (reply(7, 13, 0, 1), "no room"),
            (reply(7, 13, 25, 1), "instead of 16 to 24"),
            (reply(7, 13, u32::MAX, 0x21), "instead of 16 to 24"),
            (reply(7, 13, 16, 0), "type 0"),
        ] {
            let refused = judge(header).unwrap_err();
            assert!(refused.contains(what), "{refused}");
        }
    }

    #[test]
    fn odd_error_numbers_are_errors_all_the_same() {
        assert_eq!(errno(22).raw_os_error(), Some(libc::EINVAL));
        for odd in [0, 4096, 1 << 31, u32::MAX] {
            assert!(errno(odd).to_string().contains(&odd.to_string()));
        }
    }

    #[test]
    fn nothing_is_read_behind_the_end_of_an_answer() {
        let bytes = [1, 0, 0, 0, 2, 0, 0, 0];
        assert_eq!((u64_at(&bytes, 0), u32_at(&bytes, 4)), (0x2_0000_0001, 2));
        assert_eq!((u32_at(&bytes, 8), u64_at(&bytes, usize::MAX)), (0, 0));
    }
}
