//! Blobs built by hand: what is read from them, and that damage is an error.

extern crate std;

use super::{MAX_HARTS, Tree};
use crate::fdt::{FdtError, total_bytes};
use std::borrow::ToOwned;
use std::string::String;
use std::vec::Vec;

/// Writes a blob: structure and strings, header in [`Blob::finish`].
#[derive(Default)]
struct Blob {
    structure: Vec<u8>,
    strings: Vec<u8>,
}

impl Blob {
    fn word(mut self, word: u32) -> Self {
        self.structure.extend(word.to_be_bytes());
        self
    }

    fn padded(mut self, bytes: &[u8]) -> Self {
        self.structure.extend(bytes);
        self.structure.resize(self.structure.len().next_multiple_of(4), 0);
        self
    }

    fn begin(self, name: &str) -> Self {
        self.word(1).padded(&[name.as_bytes(), b"\0"].concat())
    }

    fn end(self) -> Self {
        self.word(2)
    }

    fn property(mut self, name: &str, value: &[u8]) -> Self {
        let at = u32::try_from(self.strings.len()).expect("small");
        self.strings.extend(name.as_bytes());
        self.strings.push(0);
        let bytes = u32::try_from(value.len()).expect("small");
        self.word(3).word(bytes).word(at).padded(value)
    }

    fn cells(self, name: &str, cells: &[u32]) -> Self {
        let bytes: Vec<u8> = cells.iter().flat_map(|c| c.to_be_bytes()).collect();
        self.property(name, &bytes)
    }

    fn text(self, name: &str, text: &str) -> Self {
        self.property(name, &[text.as_bytes(), b"\0"].concat())
    }

    fn finish(self) -> Vec<u8> {
        let structure = self.word(9);
        let size = |bytes: &[u8]| u32::try_from(bytes.len()).expect("small");
        let (n, s) = (size(&structure.structure), size(&structure.strings));
        // Header of 40 bytes, then an empty memory reservation block of 16.
        let header = [0xD00D_FEED, 56 + n + s, 56, 56 + n, 40, 17, 16, 0, s, n];
        let mut out: Vec<u8> = header.iter().flat_map(|w: &u32| w.to_be_bytes()).collect();
        out.resize(56, 0);
        out.extend(structure.structure);
        out.extend(structure.strings);
        out
    }
}

fn cpu(blob: Blob, id: u32, status: Option<&str>) -> Blob {
    let mut name = String::from("cpu@");
    name.push(char::from_digit(id % 36, 36).expect("a digit"));
    let blob = blob.begin(&name).text("device_type", "cpu").cells("reg", &[id]);
    match status {
        Some(s) => blob.text("status", s),
        None => blob,
    }
    // A nested node with a reg of its own is no hart.
    .begin("interrupt-controller")
    .cells("reg", &[5])
    .end()
    .end()
}

fn npu(blob: Blob, address: u32, status: &str) -> Blob {
    blob.begin("npu@20000000")
        .cells("reg", &[0, address, 0, 0x1_0000])
        .property("compatible", b"presil,npu-9\0presil,npu-1\0")
        .text("status", status)
        .end()
}

fn machine() -> Blob {
    let mut b = Blob::default().begin("").cells("#address-cells", &[2]).cells("#size-cells", &[2]);
    b = b.begin("chosen");
    b = b.cells("presil,image", &[0x1, 0x9000_0000]).cells("presil,arena", &[0, 0x8100_0000, 0, 0x0200_0000]);
    b = b.cells("presil,bulk", &[0, 0xA000_0000, 2, 0]).cells("presil,prefill-chunk", &[128]);
    b = b.cells("presil,positions", &[4096]).cells("presil,kv-bits", &[8]);
    b = b.cells("presil,kv-page", &[64]).cells("presil,kv-pool", &[1000]).end();
    b = b.begin("cpus").cells("#address-cells", &[1]).cells("#size-cells", &[0]);
    b = b.cells("timebase-frequency", &[10_000_000]);
    for id in [0, 1, 3] {
        b = cpu(b, id, None);
    }
    b = cpu(cpu(cpu(b, 4, Some("disabled")), 5, Some("okay")), 16, None).end();
    b = b.begin("soc").cells("#address-cells", &[2]).cells("#size-cells", &[2]);
    npu(npu(npu(b, 0x2000_0000, "okay"), 0x2001_0000, "okay"), 0x2002_0000, "disabled").end()
}

#[test]
fn a_whole_machine() {
    let blob = machine().end().finish();
    assert_eq!(total_bytes(&blob[..8]), Some(blob.len()));
    let mut npu = [0; 8];
    npu[..2].copy_from_slice(&[0x2000_0000, 0x2001_0000]);
    let expected = Tree {
        harts: 0b10_1011,
        other_harts: 1,
        timebase_hz: 10_000_000,
        npu,
        npu_count: 2,
        npu_unused: 1,
        image: Some(0x1_9000_0000),
        arena: Some((0x8100_0000, 0x0200_0000)),
        bulk: Some((0xA000_0000, 0x2_0000_0000)),
        chunk: Some(128),
        positions: Some(4096),
        kv_bits: Some(8),
        kv_page: Some(64),
        kv_pool: Some(1000),
    };
    assert_eq!(Tree::read(&blob), Ok(expected));
    assert_eq!(MAX_HARTS, 16, "hart 16 above is the first beyond");
}

#[test]
fn missing_properties_stay_missing() {
    let blob =
        Blob::default().begin("").begin("chosen").cells("presil,arena", &[0, 1, 0]).end().end().finish();
    assert_eq!(Tree::read(&blob), Ok(Tree::default()));
}

#[test]
fn damage_is_an_error_of_its_kind() {
    let good = machine().end().finish();
    let with = |at: usize, word: u32| {
        let mut bad = good.clone();
        bad[at..at + 4].copy_from_slice(&word.to_be_bytes());
        Tree::read(&bad)
    };
    assert_eq!(with(0, 0xD00D_FEEC), Err(FdtError::Magic));
    assert_eq!(with(24, 18), Err(FdtError::Version));
    assert_eq!(with(8, 0xFFFF_FFF0), Err(FdtError::Bounds));
    assert_eq!(with(12, 0xFFFF_FFF0), Err(FdtError::Bounds));
    assert_eq!(with(36, 0xFFFF_FFFF), Err(FdtError::Bounds));
    assert_eq!(with(56, 7), Err(FdtError::Token(7)));
    assert_eq!(Tree::read(&machine().finish()), Err(FdtError::Token(9)), "the root is open");
    assert_eq!(Tree::read(&machine().end().end().finish()), Err(FdtError::Token(2)));
    let deep = (0..20).fold(Blob::default(), |b, _| b.begin("n"));
    assert_eq!(Tree::read(&(0..20).fold(deep, |b, _| b.end()).finish()), Err(FdtError::Depth));
}

/// No blob makes the reader panic or run on: every truncation, and every byte replaced.
#[test]
fn no_damage_is_fatal() {
    let good = machine().end().finish();
    let reference = Tree::read(&good).expect("good");
    for n in 0..good.len() {
        assert!(Tree::read(&good[..n]).is_err(), "cut to {n} bytes");
    }
    let mut survivors = 0;
    for at in 0..good.len() {
        for value in [0, 1, 2, 3, 0x7F, 0x80, 0xFF] {
            let mut bad = good.to_owned();
            bad[at] = value;
            survivors += usize::from(Tree::read(&bad) == Ok(reference));
        }
    }
    assert!(survivors < good.len() * 7, "damage somewhere must show");
}
