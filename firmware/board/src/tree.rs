//! What the firmware needs from the device tree.

use isa::boot;
use isa::npu::MAX_CORES;

use crate::fdt::{Event, Fdt, FdtError, cells};

/// Most harts the firmware has stacks for.
pub const MAX_HARTS: usize = 16;
/// Deepest node the reader follows.
const MAX_DEPTH: usize = 12;

/// The machine and its work as the device tree tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    /// Bit i: hart i exists.
    pub harts: u64,
    /// Harts beyond those the firmware can name.
    pub other_harts: u64,
    /// Ticks of `mtime` in a second, 0 if the tree does not say.
    pub timebase_hz: u64,
    /// First address of every enabled NPU core, in the tree's order.
    pub npu: [u64; MAX_CORES],
    /// How many there are.
    pub npu_count: usize,
    /// NPU cores that are switched off, and any beyond [`MAX_CORES`].
    pub npu_unused: usize,
    /// Address of the model image.
    pub image: Option<u64>,
    /// Memory for lists and results: address, bytes.
    pub arena: Option<(u64, u64)>,
    /// Memory for cache and activations: address, bytes.
    pub bulk: Option<(u64, u64)>,
    /// Most rows of a prefill chunk.
    pub chunk: Option<u64>,
    /// Most positions.
    pub positions: Option<u64>,
    /// Bits of an element of the cache of keys and values.
    pub kv_bits: Option<u64>,
    /// Positions of a page of it.
    pub kv_page: Option<u64>,
    /// Positions it has pages for.
    pub kv_pool: Option<u64>,
}

/// A node while it is open.
#[derive(Clone, Copy, Default)]
struct Node<'a> {
    name: &'a str,
    reg: &'a [u8],
    npu: bool,
    off: bool,
    address_cells: usize,
}

impl<'a> Node<'a> {
    fn open(name: &'a str) -> Self {
        // Two address cells are the specification's default.
        Self { name, address_cells: 2, ..Self::default() }
    }

    fn property(&mut self, name: &str, value: &'a [u8]) {
        match name {
            "reg" => self.reg = value,
            "compatible" => self.npu = strings(value).any(|s| s == boot::NPU_COMPATIBLE.as_bytes()),
            "status" => self.off = !strings(value).next().is_some_and(|s| s == b"okay" || s == b"ok"),
            "#address-cells" => {
                self.address_cells = cells(value, 0, 1).and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
            }
            _ => {}
        }
    }
}

/// The strings of a list of zero-terminated strings.
fn strings(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| *b == 0).filter(|s| !s.is_empty())
}

impl Tree {
    /// Reads a blob.
    ///
    /// # Errors
    /// If it is damaged.
    pub fn read(blob: &[u8]) -> Result<Self, FdtError> {
        let fdt = Fdt::new(blob)?;
        let mut tree = Self::default();
        let mut open = [Node::default(); MAX_DEPTH];
        let mut depth = 0;
        for event in fdt.events() {
            match event? {
                Event::Begin(name) => {
                    *open.get_mut(depth).ok_or(FdtError::Depth)? = Node::open(name);
                    depth += 1;
                }
                Event::Property(name, value) => {
                    open[depth - 1].property(name, value);
                    let node = open[depth - 1].name;
                    if depth == 2 && node == boot::CHOSEN {
                        tree.chosen(name, value);
                    }
                    if depth == 2 && node == "cpus" && name == "timebase-frequency" {
                        tree.timebase_hz = cells(value, 0, value.len() / 4).unwrap_or(0);
                    }
                }
                Event::End => {
                    depth -= 1;
                    if depth > 0 {
                        tree.node(&open[depth], &open[depth - 1]);
                    }
                }
            }
        }
        Ok(tree)
    }

    fn chosen(&mut self, name: &str, value: &[u8]) {
        // Numbers of either width are taken: what the tree says is clear.
        let number = cells(value, 0, value.len() / 4);
        let pair = match (cells(value, 0, 2), cells(value, 2, 2)) {
            (Some(a), Some(b)) => Some((a, b)),
            _ => None,
        };
        match name {
            boot::PROP_IMAGE => self.image = number,
            boot::PROP_ARENA => self.arena = pair,
            boot::PROP_BULK => self.bulk = pair,
            boot::PROP_CHUNK => self.chunk = number,
            boot::PROP_POSITIONS => self.positions = number,
            boot::PROP_KV_BITS => self.kv_bits = number,
            boot::PROP_KV_PAGE => self.kv_page = number,
            boot::PROP_KV_POOL => self.kv_pool = number,
            _ => {}
        }
    }

    fn node(&mut self, node: &Node, parent: &Node) {
        let Some(address) = cells(node.reg, 0, parent.address_cells).filter(|_| !node.reg.is_empty()) else {
            return;
        };
        if parent.name == "cpus" && !node.off && node.name.split('@').next() == Some("cpu") {
            match address {
                id if id < MAX_HARTS as u64 => self.harts |= 1 << id,
                _ => self.other_harts += 1,
            }
        }
        if node.npu {
            match self.npu.get_mut(self.npu_count) {
                Some(slot) if !node.off => {
                    *slot = address;
                    self.npu_count += 1;
                }
                _ => self.npu_unused += 1,
            }
        }
    }
}

#[cfg(test)]
mod tests;
