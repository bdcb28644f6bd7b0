//! Hart 0 from the first Rust instruction to the first job.

use board::{Tree, fdt};
use isa::cache::PageChoice;
use isa::image::ImageHeader;
use isa::kinds::LayerKinds;
use isa::memory_map::{error, mailbox};
use runtime::model::ModelError;
use runtime::program::{Places, Unfit};
use runtime::{Caps, Model, Program};

use crate::console::line;
use crate::failure::give_up;
use crate::hardware::{JOBS, Shared, loaded};
use crate::npu::Cluster;
use crate::{harts, interrupts, jobs};

/// Largest device tree blob that is read.
const MOST_TREE_BYTES: usize = 1 << 20;

/// Everything before the first job, then jobs.
pub fn run(tree: usize) -> ! {
    line!("presil firmware {}", env!("CARGO_PKG_VERSION"));
    let tree = device_tree(tree);
    wake_harts(&tree);
    if tree.npu_count == 0 {
        line!("no enabled NPU in the device tree ({} unused): nothing to compute on", tree.npu_unused);
        give_up(error::NO_NPU);
    }
    let mut cluster = Cluster::open(&tree);
    let (model, places) = work(&tree);
    cluster.check(&model);
    let Some(mut arena) = Shared::new(places.arena.0, places.arena.1) else {
        line!("arena: {:#x} is not memory behind the firmware, aligned to 64", places.arena.0);
        give_up(error::DOES_NOT_FIT)
    };
    let mut program = match Program::new(cluster.caps, model, places, &mut arena) {
        Ok(program) => program,
        Err(why) => does_not_fit(why, &cluster.caps, &model, &places),
    };
    if arena.overflow {
        does_not_fit(Unfit::Arena, &cluster.caps, &model, &places);
    }
    let (decode, prefill) = program.plans();
    line!(
        "plan: decode {}, block {}, {} slots of {} KiB; prefill {} rows, {}",
        kind(decode.resident),
        decode.block,
        decode.slot_count,
        decode.slot_bytes >> 10,
        prefill.rows,
        kind(prefill.resident)
    );
    cluster.start(&program, &mut arena, places.arena.0, places.arena.1);
    interrupts::route(cluster.caps.cores);
    if model.encoder() {
        JOBS.store(mailbox::EMBEDDING_WIDTH, model.h.hidden);
    } else {
        JOBS.store(mailbox::LOGITS, places.bulk.0 + program.logits_offset());
    }
    if let Some(pages) = program.pages() {
        JOBS.store(mailbox::KV_TOTAL, pages.paging.total_pages());
    }
    JOBS.store(mailbox::READY, 1);
    jobs::serve(&mut program, &mut cluster, &mut arena, &model, &places)
}

const fn kind(resident: bool) -> &'static str {
    if resident { "resident" } else { "spilled" }
}

fn device_tree(address: usize) -> Tree {
    let bytes = fdt::total_bytes(loaded(address, 8)).filter(|n| *n <= MOST_TREE_BYTES);
    let Some(bytes) = bytes else { panic!("no device tree at {address:#x}") };
    match Tree::read(loaded(address, bytes)) {
        Ok(tree) => tree,
        Err(why) => panic!("damaged device tree: {why:?}"),
    }
}

fn wake_harts(tree: &Tree) {
    let answered = harts::roll_call(tree.harts, tree.timebase_hz);
    let expected = tree.harts | 1;
    if answered == expected && tree.other_harts == 0 {
        line!("{} harts", answered.count_ones());
    } else {
        let all = u64::from(expected.count_ones()) + tree.other_harts;
        line!("{} of {all} harts answered (mask {answered:#x})", answered.count_ones());
    }
}

/// The model and the memory for it, from the tree's `chosen` node.
fn work(tree: &Tree) -> (Model, Places) {
    let (Some(image), Some(arena), Some(bulk), Some(chunk), Some(positions)) =
        (tree.image, tree.arena, tree.bulk, tree.chunk, tree.positions)
    else {
        line!(
            "chosen: image {:x?} arena {:x?} bulk {:x?} chunk {:?} positions {:?}: one is missing",
            tree.image,
            tree.arena,
            tree.bulk,
            tree.chunk,
            tree.positions
        );
        give_up(error::BAD_IMAGE)
    };
    let bytes = ImageHeader::WORDS as u64 * 8;
    let Some(memory) = Shared::new(image, bytes + LayerKinds::MOST_WORDS * 8) else {
        line!("image: {image:#x} is not memory behind the firmware, aligned to 64");
        give_up(error::BAD_IMAGE)
    };
    let mut words = [0; ImageHeader::WORDS];
    for (offset, word) in (0..).step_by(8).zip(&mut words) {
        *word = memory.word(offset);
    }
    let header = ImageHeader::from_words(&words);
    let model = match Model::read(header, |i| memory.word(bytes + i * 8)) {
        Ok(model) => model,
        Err(ModelError::Kinds(why)) => {
            line!("image at {image:#x}: its table of kinds of layers is damaged: {why}");
            give_up(error::BAD_IMAGE)
        }
        Err(ModelError::Unknown(flags)) => {
            line!("image at {image:#x}: its flags {flags:#x} ask for what this firmware does not compute");
            give_up(error::NOT_COMPUTED)
        }
        Err(why) => {
            line!("image at {image:#x}: {why:?}, magic {:#x} version {}", header.magic, header.version);
            give_up(error::BAD_IMAGE)
        }
    };
    line!(
        "model: {} layers, hidden {}, {} heads on {}, ffn {}, vocabulary {}",
        model.h.layers,
        model.h.hidden,
        model.h.heads,
        model.h.kv_heads,
        model.h.ffn,
        model.h.vocab
    );
    let kv_bits = tree.kv_bits.unwrap_or(isa::cache::PLAIN_BITS);
    if !matches!(kv_bits, 4 | 8 | isa::cache::PLAIN_BITS) {
        line!("chosen: keys and values of {kv_bits} bits: this firmware stores 16, 8 or 4");
        give_up(error::NOT_COMPUTED)
    }
    let most = if model.encoder() { model.h.position_count } else { jobs::MOST_ROWS as u64 };
    // Rows of an image or a sound are not passed one by one.
    let most = if model.stem() { most } else { most.clamp(1, jobs::MOST_ROWS as u64) };
    let chunk = chunk.clamp(1, most.max(1));
    let pages =
        PageChoice { page_positions: tree.kv_page.unwrap_or(0), pool_positions: tree.kv_pool.unwrap_or(0) };
    (model, Places { image, arena, bulk, positions, chunk, kv_bits, pages })
}

/// Says which memory is too small, then gives up.
pub fn does_not_fit(why: Unfit, caps: &Caps, model: &Model, places: &Places) -> ! {
    match why {
        Unfit::Scratchpad => line!(
            "does not fit: scratchpad {} accumulator {} bytes a core, hidden {} head_dim {} panel {}",
            caps.spm,
            caps.acc,
            model.h.hidden,
            model.h.head_dim,
            model.h.panel
        ),
        Unfit::Arena => line!(
            "does not fit: the command lists of {} kinds of layers need more than the arena's {} bytes",
            model.kinds(),
            places.arena.1
        ),
        Unfit::Bulk => {
            let h = &model.h;
            let layer = runtime::cache::layer_bytes(h.kv_heads, h.head_dim, places.positions, places.kv_bits);
            let cache = layer * h.layers;
            line!("does not fit: bulk memory {} bytes, the cache alone takes {cache}", places.bulk.1);
        }
        Unfit::Paging | Unfit::Pages => line!(
            "does not fit: pages of {} positions are too many for {} positions",
            places.pages.page_positions,
            places.positions
        ),
    }
    give_up(error::DOES_NOT_FIT)
}
