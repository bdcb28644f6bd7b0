//! Loading a bare-metal ELF: every range checked before a byte is placed.

use super::{DRAM_BYTES, ExecError};
use crate::cpu::GuestMemory;
use crate::cpu::devices::DRAM_BASE;
use object::elf;
use object::read::elf::{ElfFile64, FileHeader, ProgramHeader};
use object::{Endianness, Object, ObjectSymbol};
use sim_kernel::Addr;

/// What the machine needs to know of a loaded image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Image {
    /// Where harts start.
    pub entry: u64,
    /// Address of the `tohost` word.
    pub tohost: Option<u64>,
    /// Address of the `fromhost` word.
    pub fromhost: Option<u64>,
}

struct Segment<'a> {
    index: usize,
    start: u64,
    end: u64,
    bytes: &'a [u8],
}

fn bad(reason: impl Into<String>) -> ExecError {
    ExecError::Elf(reason.into())
}

/// Places the segments of an RV64 executable into memory.
///
/// # Errors
/// If the file is no such executable, is truncated, or wants memory that is not there.
pub fn load(file: &[u8], memory: &mut GuestMemory) -> Result<Image, ExecError> {
    let parsed = ElfFile64::<Endianness>::parse(file).map_err(|e| bad(format!("not a 64-bit ELF: {e}")))?;
    let endian = parsed.endian();
    let header = parsed.elf_header();
    if !parsed.is_little_endian() {
        return Err(bad("big-endian: expected a little-endian RISC-V executable"));
    }
    let machine = header.e_machine(endian);
    if machine != elf::EM_RISCV {
        return Err(bad(format!("machine {machine}: expected RISC-V ({})", elf::EM_RISCV)));
    }
    let kind = header.e_type(endian);
    if kind != elf::ET_EXEC {
        return Err(bad(format!("type {kind}: expected a statically linked executable ({})", elf::ET_EXEC)));
    }
    let segments = segments(&parsed, file, endian)?;
    let entry = header.e_entry(endian);
    // Test programs often leave their segments without flags, so execute permission is not asked for.
    let inside = segments.iter().any(|s| (s.start..s.end).contains(&entry));
    if !inside || entry % 2 != 0 {
        return Err(bad(format!("entry {entry:#x} is not an even address inside a loaded segment")));
    }
    for segment in &segments {
        memory.write_bytes(Addr::new(segment.start), segment.bytes)?;
    }
    let word = |name: &str| symbol(&parsed, name);
    Ok(Image { entry, tohost: word("tohost")?, fromhost: word("fromhost")? })
}

fn segments<'a>(
    parsed: &ElfFile64<'a, Endianness>,
    file: &'a [u8],
    endian: Endianness,
) -> Result<Vec<Segment<'a>>, ExecError> {
    let mut segments: Vec<Segment<'a>> = Vec::new();
    for (index, header) in parsed.elf_program_headers().iter().enumerate() {
        if header.p_type(endian) != elf::PT_LOAD || header.p_memsz(endian) == 0 {
            continue;
        }
        let (start, bytes) = (header.p_paddr(endian), header.p_memsz(endian));
        if header.p_filesz(endian) > bytes {
            return Err(bad(format!("segment {index}: more bytes in the file than in memory")));
        }
        let Ok(data) = header.data(endian, file) else {
            return Err(bad(format!("segment {index}: its bytes lie beyond the end of the file")));
        };
        let dram = DRAM_BASE..=DRAM_BASE + DRAM_BYTES;
        let end = start.checked_add(bytes).filter(|end| dram.contains(&start) && dram.contains(end));
        let Some(end) = end else {
            return Err(bad(format!(
                "segment {index}: {start:#x} + {bytes:#x} is not inside DRAM ({DRAM_BASE:#x} + {DRAM_BYTES:#x})"
            )));
        };
        if let Some(other) = segments.iter().find(|s| start < s.end && s.start < end) {
            return Err(bad(format!("segments {} and {index} overlap at {start:#x}", other.index)));
        }
        segments.push(Segment { index, start, end, bytes: data });
    }
    if segments.is_empty() {
        return Err(bad("nothing to load: no non-empty PT_LOAD segment"));
    }
    Ok(segments)
}

/// Address of a doubleword symbol, if there is one.
fn symbol(parsed: &ElfFile64<'_, Endianness>, name: &str) -> Result<Option<u64>, ExecError> {
    let Some(symbol) = parsed.symbols().find(|s| s.name() == Ok(name) && s.is_definition()) else {
        return Ok(None);
    };
    let addr = symbol.address();
    let last = DRAM_BASE + DRAM_BYTES - 8;
    if addr % 8 != 0 || !(DRAM_BASE..=last).contains(&addr) {
        return Err(bad(format!("symbol {name} at {addr:#x} is not an aligned doubleword in DRAM")));
    }
    Ok(Some(addr))
}
