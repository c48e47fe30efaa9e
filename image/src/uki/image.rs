//! A unified kernel image by its sections and profiles.

use super::{OsRelease, Program};
use crate::boot_file::FilePart;
use crate::entries::assignments;
use crate::error::LoadError;
use crate::kernel::SourceFile;

/// A unified kernel image. It has at least one profile, the first of which boots when none is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnifiedKernel {
    /// The image as it boots by itself, then its other profiles in their order.
    pub profiles: Vec<Profile>,
}

/// One way to boot an image: what all profiles have in common, with what this one has instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// Its id, from `.profile`.
    pub id: Option<String>,
    /// Its title, from `.profile`.
    pub title: Option<String>,
    /// From `.osrel`; `None` when there is no such section.
    pub os: Option<OsRelease>,
    /// The kernel's release, from `.uname`.
    pub kernel_release: Option<String>,
    /// From `.cmdline`, as the stub hands it on: control characters are blanks, and none is at the end.
    pub command_line: String,
    /// The kernel (`.linux`).
    pub kernel: Option<FilePart>,
    /// Microcode (`.ucode`) and initrd (`.initrd`), in the order in which the stub hands them on.
    pub initrds: Vec<FilePart>,
}

/// Why a file is no unified kernel image.
#[derive(Debug, thiserror::Error)]
pub enum UkiError {
    /// It is no PE file.
    #[error("it is no EFI program")]
    NotProgram,
    /// It is one for another processor.
    #[error("it is an EFI program for another architecture than x86-64")]
    Architecture,
    /// Its headers or sections cannot be.
    #[error("it is a damaged EFI program: {what}")]
    Damaged {
        /// What is wrong.
        what: &'static str,
    },
    /// It could not be read.
    #[error(transparent)]
    Read(#[from] LoadError),
}

impl UnifiedKernel {
    /// Reads headers and texts of `file`; `None` when it is an EFI program without a `.linux` section.
    pub fn parse(file: &mut SourceFile<'_>) -> Result<Option<Self>, UkiError> {
        Self::of(&Program::parse(file)?, file)
    }

    pub(crate) fn of(program: &Program, file: &mut SourceFile<'_>) -> Result<Option<Self>, UkiError> {
        if program.section(".linux").is_none() {
            return Ok(None);
        }
        let mut parts = program.sections.split(|section| section.name == PROFILE);
        let base = parts.next().unwrap_or_default();
        let heads = program.sections.iter().filter(|section| section.name == PROFILE);
        let mut profiles = Vec::new();
        for (head, own) in heads.zip(parts) {
            if profiles.len() == MAX_PROFILES {
                return Err(UkiError::Damaged {
                    what: "more than 32 profiles",
                });
            }
            profiles.push(Profile::read(file, base, own, Some(head))?);
        }
        if profiles.is_empty() {
            profiles.push(Profile::read(file, base, &[], None)?);
        }
        Ok(Some(Self { profiles }))
    }
}

impl Profile {
    /// What `own` does not have is taken from `base`.
    fn read(
        file: &mut SourceFile<'_>,
        base: &[FilePart],
        own: &[FilePart],
        head: Option<&FilePart>,
    ) -> Result<Self, UkiError> {
        let find = |name: &str| {
            let is_it = |section: &&FilePart| section.name == name;
            own.iter()
                .find(is_it)
                .or_else(|| base.iter().find(is_it))
                .cloned()
        };
        let mut text =
            |section: Option<&FilePart>| section.map(|section| read_text(file, section)).transpose();
        let fields = assignments(&text(head)?.unwrap_or_default());
        let field = |name: &str| Some(fields.iter().rev().find(|(key, _)| key == name)?.1.clone());
        let os = text(find(".osrel").as_ref())?.map(|content| OsRelease::parse(&content));
        let release = text(find(".uname").as_ref())?.map(|content| one_line(&content));
        let command_line = text(find(".cmdline").as_ref())?.map(|content| one_line(&content));
        let initrds = [find(".ucode"), find(".initrd")];
        Ok(Self {
            id: field("ID"),
            title: field("TITLE"),
            os,
            kernel_release: release,
            command_line: command_line.unwrap_or_default(),
            kernel: find(".linux").filter(|section| section.size > 0),
            initrds: initrds
                .into_iter()
                .flatten()
                .filter(|section| section.size > 0)
                .collect(),
        })
    }
}

fn read_text(file: &mut SourceFile<'_>, section: &FilePart) -> Result<Vec<u8>, UkiError> {
    if section.size > MAX_TEXT {
        return Err(UkiError::Damaged {
            what: "a text section of more than 64 KiB",
        });
    }
    let mut content = vec![0; section.size as usize];
    let count = file.read_at(section.offset, &mut content)?;
    content.truncate(count);
    Ok(content)
}

/// Text up to the first NUL, without control characters.
fn one_line(content: &[u8]) -> String {
    let end = content
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(content.len());
    let text = String::from_utf8_lossy(&content[..end]);
    let plain: String = text.chars().map(|c| if c < ' ' { ' ' } else { c }).collect();
    plain.trim_end().to_owned()
}

const PROFILE: &str = ".profile";
const MAX_PROFILES: usize = 32;
const MAX_TEXT: u64 = 64 << 10;
