//! Assembler and disassembler: `mnemonic field=value ... [| extension field=value ...]`, one command a line.
//!
//! Only non-zero fields are printed; formats print by name; `#` starts a comment.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::command::{Body, Command, Extension};
use super::layout::{Agu, Ctrl, Dma, Epilogue, Field, Gemm, Header, Index, Position, Vec as VecOp};
use super::ops::{CtrlOp, Format, VecFn};
use super::word::Word;

/// Why a line is no command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AsmError {
    /// Line, from 1.
    pub line: usize,
    /// What is wrong and what was expected.
    pub message: String,
}

const FORMAT_FIELDS: &[&str] = &["af", "bf", "cf", "xf", "yf", "dfm", "rf", "bff", "qf", "ef"];

fn print_fields(out: &mut String, fields: &[Field], skip: &[&str], get: impl Fn(&str) -> Option<u64>) {
    for f in fields {
        let value = get(f.name).unwrap_or(0);
        if skip.contains(&f.name) || (value == 0 && !matches!(f.name, "af" | "bf" | "xf")) {
            continue;
        }
        if FORMAT_FIELDS.contains(&f.name)
            && let Some(fmt) = Format::from_code(value)
        {
            out.push_str(&format!(" {}={}", f.name, fmt.name()));
            continue;
        }
        if value < 4096 {
            out.push_str(&format!(" {}={value}", f.name));
        } else {
            out.push_str(&format!(" {}={value:#x}", f.name));
        }
    }
}

/// One command as text.
#[must_use]
pub fn disassemble(command: &Command) -> String {
    let mut out = String::new();
    match &command.body {
        Body::Ctrl(b) => {
            out.push_str("ctrl.");
            out.push_str(CtrlOp::from_code(b.op).map_or("?", CtrlOp::name));
            print_fields(&mut out, Ctrl::FIELDS, &["op", "rsv"], |n| b.field(n));
        }
        Body::Dma(b) => {
            out.push_str("dma");
            print_fields(&mut out, Dma::FIELDS, &[], |n| b.field(n));
        }
        Body::Gemm(b) => {
            out.push_str("gemm");
            print_fields(&mut out, Gemm::FIELDS, &[], |n| b.field(n));
        }
        Body::Vec(b) => {
            out.push_str("vec.");
            out.push_str(VecFn::from_code(b.func).map_or("?", VecFn::name));
            print_fields(&mut out, VecOp::FIELDS, &["func"], |n| b.field(n));
        }
    }
    print_fields(&mut out, Header::FIELDS, &["opcode", "ext"], |n| command.header.field(n));
    match &command.extension {
        None => {}
        Some(Extension::Epilogue(e)) => {
            out.push_str(" | epi");
            print_fields(&mut out, Epilogue::FIELDS, &["type_"], |n| e.field(n));
        }
        Some(Extension::Index(e)) => {
            out.push_str(" | idx");
            print_fields(&mut out, Index::FIELDS, &["type_"], |n| e.field(n));
        }
        Some(Extension::Position(e)) => {
            out.push_str(" | pos");
            print_fields(&mut out, Position::FIELDS, &["type_"], |n| e.field(n));
        }
    }
    if let Some(a) = &command.agu {
        out.push_str(" | agu");
        print_fields(&mut out, Agu::FIELDS, &["type_"], |n| a.field(n));
    }
    out
}

/// Disassembles a list of words, one line a command.
///
/// # Errors
/// The word index and reason of the first word that does not decode.
pub fn disassemble_words(words: &[Word]) -> Result<Vec<String>, (usize, super::DecodeError)> {
    let (mut at, mut out) = (0, Vec::new());
    while at < words.len() {
        let command = Command::decode(&words[at..]).map_err(|e| (at, e))?;
        out.push(disassemble(&command));
        at += usize::try_from(command.words()).expect("at most 3");
    }
    Ok(out)
}

fn nearest<'a>(word: &str, names: impl Iterator<Item = &'a str>) -> String {
    let distance = |a: &str, b: &str| {
        let b: Vec<char> = b.chars().collect();
        let mut row: Vec<usize> = (0..=b.len()).collect();
        for (i, ca) in a.chars().enumerate() {
            let mut diagonal = row[0];
            row[0] = i + 1;
            for (j, cb) in b.iter().enumerate() {
                let next = (diagonal + usize::from(ca != *cb)).min(row[j] + 1).min(row[j + 1] + 1);
                diagonal = row[j + 1];
                row[j + 1] = next;
            }
        }
        row[b.len()]
    };
    names.min_by_key(|n| distance(word, n)).map(|n| format!("; nearest: `{n}`")).unwrap_or_default()
}

fn value(field: &str, text: &str) -> Result<u64, String> {
    if FORMAT_FIELDS.contains(&field)
        && let Some(f) = Format::from_name(text)
    {
        return Ok(f.code());
    }
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| {
        format!(
            "`{field}` takes a number{}, not `{text}`",
            if FORMAT_FIELDS.contains(&field) { " or a format name" } else { "" }
        )
    })
}

type Setter<'a> = &'a mut dyn FnMut(&str, u64) -> bool;

fn assign(items: &[&str], tables: &mut [(&[Field], Setter<'_>)]) -> Result<(), String> {
    for item in items {
        let (name, text) =
            item.split_once('=').ok_or_else(|| format!("expected field=value, found `{item}`"))?;
        let v = value(name, text)?;
        let mut done = false;
        for (fields, set) in tables.iter_mut() {
            let Some(f) = fields.iter().find(|f| f.name == name) else { continue };
            if f.width < 64 && v >> f.width != 0 {
                return Err(format!("`{name}` is {} bits wide, {v} does not fit", f.width));
            }
            done = set(name, v);
        }
        if !done {
            let names = tables.iter().flat_map(|(f, _)| f.iter().map(|f| f.name));
            return Err(format!("unknown field `{name}`{}", nearest(name, names)));
        }
    }
    Ok(())
}

fn assemble_line(line: &str) -> Result<Command, String> {
    let mut parts = line.split('|');
    let main = parts.next().unwrap_or("");
    let items: Vec<&str> = main.split_whitespace().collect();
    let (mnemonic, items) = items.split_first().ok_or("expected a mnemonic")?;
    let mut header = Header::default();
    let mut set_header = |n: &str, v| header.set_field(n, v);
    let mut body = match mnemonic.split_once('.') {
        None if *mnemonic == "dma" => Body::Dma(Dma::default()),
        None if *mnemonic == "gemm" => Body::Gemm(Gemm::default()),
        Some(("vec", name)) => {
            let f = VecFn::from_name(name).ok_or_else(|| {
                format!(
                    "unknown vector function `{name}`{}",
                    nearest(name, VecFn::ALL.iter().map(|f| f.name()))
                )
            })?;
            Body::Vec(VecOp { func: f.code(), ..VecOp::default() })
        }
        Some(("ctrl", name)) => {
            let op = CtrlOp::from_name(name).ok_or_else(|| {
                format!(
                    "unknown control operation `{name}`{}",
                    nearest(name, CtrlOp::ALL.iter().map(|f| f.name()))
                )
            })?;
            Body::Ctrl(Ctrl { op: op.code(), ..Ctrl::default() })
        }
        _ => {
            return Err(format!(
                "unknown mnemonic `{mnemonic}`; expected dma, gemm, vec.FUNCTION or ctrl.OPERATION"
            ));
        }
    };
    let header_fields = &Header::FIELDS[2..];
    match &mut body {
        Body::Ctrl(b) => assign(
            items,
            &mut [(&Ctrl::FIELDS[1..], &mut |n, v| b.set_field(n, v)), (header_fields, &mut set_header)],
        ),
        Body::Dma(b) => assign(
            items,
            &mut [(Dma::FIELDS, &mut |n, v| b.set_field(n, v)), (header_fields, &mut set_header)],
        ),
        Body::Gemm(b) => assign(
            items,
            &mut [(Gemm::FIELDS, &mut |n, v| b.set_field(n, v)), (header_fields, &mut set_header)],
        ),
        Body::Vec(b) => assign(
            items,
            &mut [(&VecOp::FIELDS[1..], &mut |n, v| b.set_field(n, v)), (header_fields, &mut set_header)],
        ),
    }?;
    let (mut extension, mut agu) = (None, None);
    for text in parts {
        let items: Vec<&str> = text.split_whitespace().collect();
        let (kind, items) = items.split_first().ok_or("expected epi, idx, pos or agu after `|`")?;
        if agu.is_some() || (extension.is_some() && *kind != "agu") {
            return Err(format!("`{kind}` cannot follow: at most one of epi, idx and pos, then agu"));
        }
        match *kind {
            "epi" => {
                let mut e = Epilogue::default();
                assign(items, &mut [(&Epilogue::FIELDS[1..], &mut |n, v| e.set_field(n, v))])?;
                extension = Some(Extension::Epilogue(e));
            }
            "idx" => {
                let mut e = Index::default();
                assign(items, &mut [(&Index::FIELDS[1..], &mut |n, v| e.set_field(n, v))])?;
                extension = Some(Extension::Index(e));
            }
            "pos" => {
                let mut e = Position::default();
                assign(items, &mut [(&Position::FIELDS[1..], &mut |n, v| e.set_field(n, v))])?;
                extension = Some(Extension::Position(e));
            }
            "agu" => {
                let mut a = Agu::default();
                assign(items, &mut [(&Agu::FIELDS[1..], &mut |n, v| a.set_field(n, v))])?;
                agu = Some(a);
            }
            other => return Err(format!("unknown extension `{other}`; expected epi, idx, pos or agu")),
        }
    }
    let command = Command { header, body, extension, agu };
    // What assembles must also decode: unknown codes and misplaced extensions are refused here, with the line.
    let words: Vec<Word> = command.words_of().into_iter().flatten().collect();
    Command::decode(&words).map_err(|e| format!("{e}"))
}

/// Assembles a text into words.
///
/// # Errors
/// The first line that is no command.
pub fn assemble(text: &str) -> Result<Vec<Word>, AsmError> {
    let mut out = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or("").trim();
        if line.is_empty() {
            continue;
        }
        let command =
            assemble_line(line).map_err(|message| AsmError { line: i + 1, message: message.to_owned() })?;
        out.extend(command.words_of().into_iter().flatten());
    }
    Ok(out)
}
