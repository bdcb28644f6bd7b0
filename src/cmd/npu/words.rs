//! `presil npu asm` and `disasm`: command words as text, as binary, as hexadecimal digits.

use std::fs;
use std::io::Write;
use std::path::Path;

use isa::npu::Word;
use isa::npu::text::{assemble, disassemble_words};
use isa::npu::word::WORD_BYTES;

use crate::error::CliError;

/// Assembles `file` into binary words in `output`, or into lines of hexadecimal digits.
pub(super) fn asm(file: &Path, output: Option<&Path>, out: &mut dyn Write) -> Result<(), CliError> {
    let text = fs::read_to_string(file).map_err(|e| CliError::input(format!("{}: {e}", file.display())))?;
    let words = assemble(&text)
        .map_err(|e| CliError::input(format!("{}:{}: {}", file.display(), e.line, e.message)))?;
    match output {
        Some(path) => {
            let bytes: Vec<u8> = words.iter().flat_map(Word::to_bytes).collect();
            fs::write(path, bytes).map_err(|e| CliError::input(format!("{}: {e}", path.display())))?;
        }
        None => {
            for w in &words {
                writeln!(out, "{:016x}{:016x}{:016x}{:016x}", w.0[3], w.0[2], w.0[1], w.0[0])?;
            }
        }
    }
    Ok(())
}

/// Disassembles `file`.
pub(super) fn disasm(file: &Path, out: &mut dyn Write) -> Result<(), CliError> {
    let bytes = fs::read(file).map_err(|e| CliError::input(format!("{}: {e}", file.display())))?;
    let words = match std::str::from_utf8(&bytes) {
        Ok(text) if looks_hexadecimal(text) => hexadecimal(file, text)?,
        _ => binary(file, &bytes)?,
    };
    let lines = disassemble_words(&words)
        .map_err(|(index, e)| CliError::input(format!("{}: word {index}: {e}", file.display())))?;
    for line in lines {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

/// Text of hexadecimal digits and white space; no binary command starts like that.
fn looks_hexadecimal(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_hexdigit() || b.is_ascii_whitespace())
}

fn hexadecimal(file: &Path, text: &str) -> Result<Vec<Word>, CliError> {
    let mut words = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        let wrong = || {
            CliError::input(format!(
                "{}:{}: expected 64 hexadecimal digits, found {} characters",
                file.display(),
                index + 1,
                line.len()
            ))
        };
        if line.len() != 64 {
            return Err(wrong());
        }
        let mut word = Word::default();
        for (lane, digits) in word.0.iter_mut().rev().zip(line.as_bytes().chunks_exact(16)) {
            let digits = std::str::from_utf8(digits).map_err(|_| wrong())?;
            *lane = u64::from_str_radix(digits, 16).map_err(|_| wrong())?;
        }
        words.push(word);
    }
    Ok(words)
}

fn binary(file: &Path, bytes: &[u8]) -> Result<Vec<Word>, CliError> {
    let size = usize::try_from(WORD_BYTES).unwrap_or(32);
    let chunks = bytes.chunks_exact(size);
    if !chunks.remainder().is_empty() {
        return Err(CliError::input(format!(
            "{}: {} bytes is no whole number of {size}-byte words",
            file.display(),
            bytes.len()
        )));
    }
    Ok(chunks.filter_map(|c| c.try_into().ok()).map(Word::from_bytes).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROGRAM: &str = "dma moff=64 saddr=0x1000 n0=63 s0_id=1 s0_n=1\n\
        gemm b=100 c=10 m=3 n=15 k=15 af=fp16 bf=int4 cf=fp32 w0_id=1 w0_n=1 drain=1 | epi ag=1 asf=2\n\
        ctrl.irq tag=7\n";

    #[test]
    fn programs_come_back_through_both_encodings() {
        let folder = std::env::temp_dir().join(format!("presil-words-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a temporary folder");
        let path = |name: &str| folder.join(name);
        fs::write(path("a.npu"), PROGRAM).expect("written");
        let mut nothing = Vec::new();
        asm(&path("a.npu"), Some(&path("a.bin")), &mut nothing).expect("assembles");
        assert!(nothing.is_empty());
        assert_eq!(fs::read(path("a.bin")).expect("read").len(), 4 * 32);
        let mut digits = Vec::new();
        asm(&path("a.npu"), None, &mut digits).expect("assembles");
        fs::write(path("a.hex"), &digits).expect("written");
        let mut texts = Vec::new();
        for name in ["a.bin", "a.hex"] {
            let mut text = Vec::new();
            disasm(&path(name), &mut text).expect("disassembles");
            texts.push(String::from_utf8(text).expect("UTF-8"));
        }
        assert_eq!(texts[0], texts[1]);
        fs::write(path("b.npu"), &texts[0]).expect("written");
        let mut again = Vec::new();
        asm(&path("b.npu"), None, &mut again).expect("assembles");
        assert_eq!(again, digits, "text of text is the same program");
        fs::remove_dir_all(&folder).expect("removed");
    }

    #[test]
    fn mistakes_name_their_line_or_word() {
        let folder = std::env::temp_dir().join(format!("presil-wrong-words-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a temporary folder");
        let path = folder.join("p");
        let mut out = Vec::new();
        let mut refused = |content: &[u8], assembler: bool| {
            fs::write(&path, content).expect("written");
            let outcome = if assembler { asm(&path, None, &mut out) } else { disasm(&path, &mut out) };
            outcome.expect_err("wrong").to_string()
        };
        let message = refused(b"dma\ngemm kk=3\n", true);
        assert!(message.contains("p:2: unknown field `kk`; nearest: `k`"), "{message}");
        let message = refused(b"\xFF\xFE", true);
        assert!(message.contains("p: "), "{message}");
        let message = refused(&[0; 33], false);
        assert!(message.contains("33 bytes is no whole number"), "{message}");
        let mut words = [0; 64];
        words[32] = 0xE0;
        let message = refused(&words, false);
        assert!(message.contains("word 1: no operation has opcode 0xe0"), "{message}");
        let message = refused(b"00\n", false);
        assert!(message.contains("p:1: expected 64 hexadecimal digits, found 2"), "{message}");
        fs::remove_dir_all(&folder).expect("removed");
        assert!(asm(&path, None, &mut Vec::new()).is_err());
        assert!(disasm(&path, &mut Vec::new()).is_err());
    }
}
