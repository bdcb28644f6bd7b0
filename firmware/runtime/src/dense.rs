//! Dense phases: weight tiles stream through slots, panels accumulate, results go where the next phase reads them.

use isa::image;
use isa::npu::{Command, Dma, Epilogue, Format, Gemm};

use crate::emit::{Emitter, R_BULK, R_IMAGE, R_LAYER, Sem, Sink};
use crate::model::Matrix;
use crate::norm::{everyone, granule, linear, quantise_rows};
use crate::plan::share;
use crate::post;
use crate::program::Context;
use crate::sem;

const FP16: u64 = Format::Fp16 as u64;
const FP32: u64 = Format::Fp32 as u64;
/// Epilogue code: add R.
pub(crate) const EW_ADD: u64 = 1;
/// GEMM activation codes: GELU, erf form and tanh form.
pub(crate) const ACT_GELU: u64 = 4;
const ACT_GELU_TANH: u64 = 3;
/// Epilogue code: silu(C) * R.
const EW_SILU_MUL: u64 = 4;
/// Epilogue code: gelu(C) * R, GELU in its tanh form.
const EW_GELU_MUL: u64 = 5;

/// Walks the weight slots.
#[derive(Clone, Copy, Debug, Default)]
pub struct Slots {
    next: u64,
}

impl Slots {
    fn take(&mut self, count: u64) -> u64 {
        let i = self.next % count;
        self.next += 1;
        i
    }
}

/// The A operand of a phase.
#[derive(Clone, Copy, Debug)]
pub struct Input {
    /// Byte offset in SPM of row 0, column 0.
    pub at: u64,
    /// Bytes of a row.
    pub stride: u64,
    /// Matrix row that column 0 meets.
    pub k0: u64,
    /// Columns.
    pub cols: u64,
    /// Rows.
    pub rows: u64,
}

/// Where a finished panel goes.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// Byte offset in SPM.
    pub at: u64,
    /// Bytes of a row.
    pub stride: u64,
    /// Format code.
    pub format: u64,
    /// Element-wise epilogue code, operand and its row stride and format.
    pub ew: Option<(u64, u64, u64, u64)>,
    /// Bias vector (fp32).
    pub bias: Option<u64>,
    /// Activation code.
    pub act: u64,
}

/// One panel's share of a phase.
#[derive(Clone, Copy, Debug)]
pub struct Panel<'a> {
    /// Matrix.
    pub matrix: &'a Matrix,
    /// Region the matrix's offset counts from.
    pub region: u64,
    /// Panel.
    pub index: u64,
    /// A.
    pub input: Input,
    /// Scales of A.
    pub scales: u64,
    /// Accumulator byte offset.
    pub acc: u64,
    /// Whether accumulation continues.
    pub keep: bool,
    /// Finish and write, or leave in the accumulator.
    pub output: Option<Output>,
    /// What the first tile waits for beside its weights.
    pub acquire: Option<Sem>,
    /// What the last tile posts beside its slot.
    pub post: Option<Sem>,
}

/// Emits the tiles of one panel: a DMA and a GEMM each.
pub fn panel<S: Sink>(e: &mut Emitter<S>, cx: &Context, slots: &mut Slots, j: &Panel) {
    let (p, m) = (cx.plan, j.matrix);
    let stride = m.stored.panel_stride(m.k);
    let rows = m.tile_rows(j.input.cols, p.slot_bytes);
    let (mut k, end) = (j.input.k0, j.input.k0 + j.input.cols);
    while k < end {
        let to = (k + rows).min(end);
        let last_of_matrix = to == m.k;
        let from_byte = m.stored.row_offset(k);
        let to_byte = if last_of_matrix { m.stored.panel_bytes(m.k) } else { m.stored.row_offset(to) };
        let slot = slots.take(p.slot_count);
        let at = p.slot(slot);
        let bytes = (to_byte - from_byte).div_ceil(16) * 16;
        let channel = slot % cx.caps.weight_channels();
        let d = Dma {
            qos: 1,
            slc: 2,
            ..linear(0, channel, j.region, m.offset + j.index * stride + from_byte, at, bytes)
        };
        e.push(&[(sem::slot_free(slot), 1)], &[(sem::slot_full(slot), 1)], cx.tag, Command::dma(d));
        let (first, last) = (k == j.input.k0, to == end);
        let command = tile(cx, j, at, k, to, if last { j.output } else { None });
        let mut acquire = [(sem::slot_full(slot), 1), (0, 0)];
        if let (true, Some(s)) = (first, j.acquire) {
            acquire[1] = s;
        }
        let mut post = [(sem::slot_free(slot), 1), (0, 0)];
        if let (true, Some(s)) = (last, j.post) {
            post[1] = s;
        }
        e.push(&acquire, &post, cx.tag, command);
        k = to;
    }
}

fn tile(cx: &Context, j: &Panel, b: u64, k: u64, to: u64, output: Option<Output>) -> Command {
    let (model, m, i) = (cx.model, j.matrix.stored, &j.input);
    let (a_format, a_bytes) = if model.quantised() { (Format::Int8 as u64, 1) } else { (FP16, 2) };
    let row = m.row_bytes();
    let scales = match image::group_rows(m.grp) {
        0 if m.grp == 1 && to == j.matrix.k => b + (to - k) * row,
        0 => 0,
        g => b + (to - k).min(g) * row,
    };
    let accumulator = j.acc;
    let mut g = Gemm {
        a: granule(i.at + (k - i.k0) * a_bytes),
        b: granule(b),
        c: granule(accumulator),
        s: granule(scales),
        m: i.rows - 1,
        n: m.panel - 1,
        k: to - k - 1,
        ast: granule(i.stride),
        af: a_format,
        bf: m.format.code(),
        cf: if model.by_row() { Format::Int32 as u64 } else { FP32 },
        init: u64::from(j.keep || k > i.k0),
        grp: m.grp,
        sf: m.sf,
        zpm: m.zpm,
        ..Gemm::default()
    };
    if output.is_none() && !model.by_block() {
        return Command::gemm(g, None);
    }
    let mut x = Epilogue::default();
    if model.by_block() {
        x.ag = model.h.act_group;
        x.asf = 2;
        x.asum = u64::from(model.sums());
        x.asp = model.scales_of(i.cols);
        x.as_ = granule(j.scales + model.scales_of(k - i.k0) * 4);
    }
    let Some(o) = output else { return Command::gemm(g, Some(x)) };
    g.drain = 1;
    g.csp = 1;
    g.c = granule(o.at);
    g.cst = granule(o.stride);
    g.cf = o.format;
    g.act = o.act;
    x.aca = granule(accumulator);
    if let Some((ew, r, stride, format)) = o.ew {
        (x.ew, x.r, x.rst, x.rf) = (ew, granule(r), granule(stride), format);
    }
    if let Some(bias) = o.bias {
        (x.bias, x.bff) = (granule(bias), FP32);
    }
    if model.by_row() {
        (x.ag, x.as_, x.asf) = (1, granule(j.scales), 2);
    }
    Command::gemm(g, Some(x))
}

fn is_last(cx: &Context, head: u64) -> bool {
    head + 1 == share(cx.model.h.kv_heads, cx.core, cx.caps.cores).1
}

/// What QKV of `head` posts when it is computed.
fn qkv_done(cx: &Context, head: u64) -> Sem {
    if !cx.plan.resident && is_last(cx, head) { (sem::QKV_LAST, 2) } else { (sem::QKV_DONE, 1) }
}

/// What the rotation of `head` acquires.
#[must_use]
pub fn rotation_waits(cx: &Context, head: u64) -> Sem {
    (qkv_done(cx, head).0, 1)
}

/// Tells the cluster that this core has read its QKV input, over which attention outputs will be gathered
/// (spilled): the smallest copy onto itself carries the post behind the last head's GEMM.
pub fn input_read<S: Sink>(e: &mut Emitter<S>, cx: &Context) {
    let at = cx.plan.result;
    let own = Dma { cmask: 1 << cx.core, ..linear(2, cx.caps.out_channel(), 0, granule(at), at, 16) };
    e.push(&[(sem::QKV_LAST, 1)], &[(sem::A_DONE, 1)], cx.tag, Command::dma(own));
}

/// QKV of this core's KV head `head` (the `i`-th of its heads).
pub fn qkv<S: Sink>(
    e: &mut Emitter<S>,
    cx: &Context,
    slots: &mut Slots,
    head: u64,
    i: u64,
    first: Option<Sem>,
) {
    head_qkv(e, cx, slots, (head, i, cx.plan.qkv_at(i)), first, qkv_done(cx, head));
}

/// The same to a place of its own: waits for `first`, posts `done`.
pub(crate) fn head_qkv<S: Sink>(
    e: &mut Emitter<S>,
    cx: &Context,
    slots: &mut Slots,
    (head, i, at): (u64, u64, u64),
    first: Option<Sem>,
    done: Sem,
) {
    let (m, p) = (cx.model, cx.plan);
    let (matrix, value, cols) = (m.qkv(), m.value(), m.group_cols());
    let panels = cols / m.h.panel;
    // Panels of the head's queries and key come first; those of its value may be in a matrix of their own.
    let own = if value.panels > 0 { panels - m.h.head_dim / m.h.panel } else { panels };
    for q in 0..panels {
        let output = Output {
            at: at + q * m.h.panel * 2,
            stride: cols * 2,
            format: FP16,
            ew: None,
            bias: m.bias().then_some(p.bias + (i * cols + q * m.h.panel) * 4),
            act: 0,
        };
        let (matrix, index) =
            if q < own { (&matrix, head * own + q) } else { (&value, head * (panels - own) + q - own) };
        let job = Panel {
            matrix,
            region: R_LAYER,
            index,
            input: Input { at: p.a, stride: p.a_stride, k0: 0, cols: matrix.k, rows: p.rows },
            scales: p.a_scale,
            acc: 0,
            keep: false,
            output: Some(output),
            acquire: if q == 0 { first } else { None },
            post: (q + 1 == panels).then_some(done),
        };
        panel(e, cx, slots, &job);
    }
}

/// A projection back into the residual stream from an input that is whole in SPM.
pub fn project<S: Sink>(
    e: &mut Emitter<S>,
    cx: &Context,
    slots: &mut Slots,
    matrix: &Matrix,
    input: Input,
    ready: Sem,
    bias: Option<u64>,
) {
    let (m, p) = (cx.model, cx.plan);
    let (from, to) = share(matrix.panels, cx.core, cx.caps.cores);
    if from == to {
        e.sync_in_order(&[ready], &[post::told(cx)]);
        return;
    }
    for q in from..to {
        let last = q + 1 == to;
        let col = q * m.h.panel;
        if p.resident {
            let x = post::target(cx) + col * 4;
            let ew = (!m.post_norms()).then_some((EW_ADD, x, m.h.hidden * 4, FP32));
            let bias = bias.map(|b| b + col * 4);
            let output = Output { at: x, stride: m.h.hidden * 4, format: FP32, ew, bias, act: 0 };
            let job = Panel {
                matrix,
                region: R_LAYER,
                index: q,
                input,
                scales: p.a_scale,
                acc: 0,
                keep: false,
                output: Some(output),
                acquire: (q == from).then_some(ready),
                post: last.then_some((sem::out_full(0), 1)),
            };
            panel(e, cx, slots, &job);
        } else {
            let b = (q - from) % 2;
            // The residual tile's load also stands for "staging is free" and, first, for "the input is ready".
            load_residual(e, cx, q, b, (q == from).then_some(ready));
            let job = Panel {
                matrix,
                region: R_LAYER,
                index: q,
                input,
                scales: p.a_scale,
                acc: 0,
                keep: false,
                output: Some(residual_output(cx, b, bias.map(|b| b + col * 4))),
                acquire: Some((sem::res_full(b), 1)),
                post: Some((sem::out_full(b), 1)),
            };
            panel(e, cx, slots, &job);
            store_residual(e, cx, q, b, last.then_some(post::told(cx)));
        }
    }
    if p.resident {
        send_slice(
            e,
            cx,
            post::target(cx),
            from * m.h.panel * 4,
            (to - from) * m.h.panel * 4,
            m.h.hidden * 4,
            post::told(cx),
        );
    }
}

/// Multicasts this core's columns of a gathered buffer to the other cores.
fn send_slice<S: Sink>(
    e: &mut Emitter<S>,
    cx: &Context,
    base: u64,
    offset: u64,
    bytes: u64,
    stride: u64,
    tell: Sem,
) {
    let n = cx.caps.cores;
    if n == 1 {
        // Nobody else to tell: the smallest copy onto itself carries the post behind the last GEMM.
        let own = Dma {
            cmask: 1 << cx.core,
            ..linear(2, cx.caps.out_channel(), 0, granule(base + offset), base + offset, 16)
        };
        e.push(&[(sem::out_full(0), 1)], &[tell], cx.tag, Command::dma(own));
        return;
    }
    let send = Dma {
        n0: bytes / 16 - 1,
        n1: cx.plan.rows - 1,
        mst1: stride / 16,
        sst1: granule(stride),
        cmask: everyone(n) & !(1 << cx.core),
        ..linear(2, cx.caps.out_channel(), 0, granule(base + offset), base + offset, 16)
    };
    e.push(&[(sem::out_full(0), 1)], &[tell], cx.tag, Command::dma(send));
}

fn load_residual<S: Sink>(e: &mut Emitter<S>, cx: &Context, panel: u64, b: u64, also: Option<Sem>) {
    let bytes = cx.plan.rows * cx.model.h.panel * 4;
    let mut d = linear(
        0,
        cx.caps.misc_channel(),
        R_BULK,
        cx.x_offset + panel * bytes,
        cx.plan.res[b as usize],
        bytes,
    );
    if cx.model.post_norms() {
        // Nothing is added yet: the smallest fill keeps the load's place in the protocol.
        d = Dma { dir: 3, ..linear(0, d.ch, 0, 0, cx.plan.res[b as usize], 16) };
    }
    let acquire = [(sem::out_free(b), 1), also.unwrap_or((0, 0))];
    e.push(&acquire, &[(sem::res_full(b), 1)], cx.tag, Command::dma(d));
}

fn residual_output(cx: &Context, b: u64, bias: Option<u64>) -> Output {
    let stride = cx.model.h.panel * 4;
    let ew = (!cx.model.post_norms()).then_some((EW_ADD, cx.plan.res[b as usize], stride, FP32));
    Output { at: cx.plan.out[b as usize], stride, format: FP32, ew, bias, act: 0 }
}

fn store_residual<S: Sink>(e: &mut Emitter<S>, cx: &Context, panel: u64, b: u64, also: Option<Sem>) {
    let bytes = cx.plan.rows * cx.model.h.panel * 4;
    let offset = post::spilled(cx) + panel * bytes;
    let d = linear(1, cx.caps.out_channel(), R_BULK, offset, cx.plan.out[b as usize], bytes);
    let post = [(sem::out_free(b), 1), also.unwrap_or((0, 0))];
    e.push(&[(sem::out_full(b), 1)], &post, cx.tag, Command::dma(d));
}

/// Gate and up with SwiGLU or GeGLU, or up alone with GELU: the hidden layer's columns of this core.
pub fn gate_up<S: Sink>(e: &mut Emitter<S>, cx: &Context, slots: &mut Slots, ready: Sem) {
    let (m, p) = (cx.model, cx.plan);
    let (up, gate) = (m.up(), m.gate());
    let (from, to) = share(up.panels, cx.core, cx.caps.cores);
    if from == to {
        e.sync_in_order(&[ready], &[(sem::H_ALL, 1)]);
        return;
    }
    let input = Input { at: p.a, stride: p.a_stride, k0: 0, cols: m.h.hidden, rows: p.rows };
    let tile_stride = m.h.panel * 2;
    for q in from..to {
        let (b, last) = ((q - from) % 2, q + 1 == to);
        let first = (q == from).then_some(ready);
        let (at, stride) = if p.resident {
            (p.h + q * m.h.panel * 2, m.h.ffn * 2)
        } else {
            (p.out[b as usize], tile_stride)
        };
        let free = (!p.resident).then_some((sem::out_free(b), 1));
        let full =
            if p.resident { last.then_some((sem::out_full(0), 1)) } else { Some((sem::out_full(b), 1)) };
        let job = Panel {
            matrix: &up,
            region: R_LAYER,
            index: q,
            input,
            scales: p.a_scale,
            acc: 0,
            keep: false,
            output: None,
            acquire: first,
            post: None,
        };
        if m.encoder() {
            let bias = Some(p.dense_bias[1] + q * m.h.panel * 4);
            let act = if m.gelu_tanh() { ACT_GELU_TANH } else { ACT_GELU };
            let output = Some(Output { at, stride, format: FP16, ew: None, bias, act });
            if let (Some(first), Some(_)) = (first, free) {
                // Weights, input and staging are one more than a command acquires.
                e.sync_in_order(&[first], &[]);
            }
            panel(e, cx, slots, &Panel { output, acquire: free.or(first), post: full, ..job });
        } else {
            let up_tile =
                Output { at: p.up, stride: tile_stride, format: FP16, ew: None, bias: None, act: 0 };
            panel(e, cx, slots, &Panel { output: Some(up_tile), ..job });
            let code = if m.gate_gelu() { EW_GELU_MUL } else { EW_SILU_MUL };
            let ew = Some((code, p.up, tile_stride, FP16));
            let output = Some(Output { at, stride, format: FP16, ew, bias: None, act: 0 });
            panel(e, cx, slots, &Panel { matrix: &gate, output, acquire: free, post: full, ..job });
        }
        if !p.resident {
            let bytes = p.rows * m.h.panel * 2;
            let d = linear(
                1,
                cx.caps.out_channel(),
                cx.h_region,
                cx.h_offset + q * bytes,
                p.out[b as usize],
                bytes,
            );
            let post = [(sem::out_free(b), 1), if last { (sem::H_ALL, 1) } else { (0, 0) }];
            e.push(&[(sem::out_full(b), 1)], &post, cx.tag, Command::dma(d));
        }
    }
    if p.resident {
        send_slice(
            e,
            cx,
            p.h,
            from * m.h.panel * 2,
            (to - from) * m.h.panel * 2,
            m.h.ffn * 2,
            (sem::H_ALL, 1),
        );
    }
}

/// The down projection of a spilled hidden layer: everyone loads a share of each chunk for everyone.
pub fn down_chunked<S: Sink>(e: &mut Emitter<S>, cx: &Context, slots: &mut Slots, bias: Option<u64>) {
    let (m, p, n) = (cx.model, cx.plan, cx.caps.cores);
    let matrix = m.down();
    let (from, to) = share(matrix.panels, cx.core, n);
    let most = matrix.panels.div_ceil(n);
    let groups = most.div_ceil(p.chunk_panels);
    let chunks = m.h.ffn.div_ceil(p.chunk_cols);
    let total = groups * chunks;
    let element = if m.by_row() { 1 } else { 2 };
    for jj in 0..total {
        let (group, c, b) = (jj / chunks, jj % chunks, jj % 2);
        let k0 = c * p.chunk_cols;
        let cols = p.chunk_cols.min(m.h.ffn - k0);
        load_chunk(e, cx, jj, b, k0, cols);
        let first = (from + group * p.chunk_panels).min(to);
        let end = (first + p.chunk_panels).min(to);
        let release = (jj + 2 < total).then_some((sem::chunk_free(b), 1));
        let mut full = (sem::chunk_full(b), n);
        if first == end {
            e.sync_in_order(&[full], release.as_slice());
            if jj + 1 == total && from == to {
                e.sync(&[], &[post::told(cx)]);
            }
            continue;
        }
        if m.by_block() {
            let place = (p.chunk[b as usize], cols * element, p.chunk_scale[b as usize]);
            quantise_rows(e, cx, place, (p.rows, cols), &[full], &[(sem::QUANTISED, 1)]);
            full = (sem::QUANTISED, 1);
        }
        let input = Input { at: p.chunk[b as usize], stride: cols * element, k0, cols, rows: p.rows };
        for q in first..end {
            let (head, tail, finish) = (q == first, q + 1 == end, c + 1 == chunks);
            let s = (q - from) % 2;
            if finish {
                load_residual(e, cx, q, s, head.then_some(full));
            }
            let acquire = if finish { Some((sem::res_full(s), 1)) } else { head.then_some(full) };
            let post = if finish {
                Some((sem::out_full(s), 1))
            } else if tail {
                release
            } else {
                None
            };
            let job = Panel {
                matrix: &matrix,
                region: R_LAYER,
                index: q,
                input,
                scales: if m.by_block() { p.chunk_scale[b as usize] } else { p.a_scale },
                acc: (q - first) * p.rows * m.h.panel * 4,
                keep: c > 0,
                output: finish.then(|| residual_output(cx, s, bias.map(|b| b + q * m.h.panel * 4))),
                acquire,
                post,
            };
            panel(e, cx, slots, &job);
            if finish {
                let also = if q + 1 == to {
                    Some(post::told(cx))
                } else if tail {
                    release
                } else {
                    None
                };
                store_residual(e, cx, q, s, also);
            }
        }
        // The last store already posts two semaphores; a release it still owes follows through the sequencer.
        if let (true, Some(release)) = (c + 1 == chunks && end == to, release) {
            let free = (sem::out_free((end - 1 - from) % 2), 1);
            e.sync_in_order(&[free], &[free, release]);
        }
    }
}

fn load_chunk<S: Sink>(e: &mut Emitter<S>, cx: &Context, jj: u64, b: u64, k0: u64, cols: u64) {
    let (m, p, n) = (cx.model, cx.plan, cx.caps.cores);
    let panel = m.h.panel;
    let (element, offset) = if m.by_row() { (1, cx.h8_offset) } else { (2, cx.h_offset) };
    let written = [(if m.by_row() { sem::H8_ALL } else { sem::H_ALL }, n)];
    let acquire: &[Sem] = match jj {
        0 => &written,
        1 => &[],
        _ => &[(sem::chunk_free(b), n)],
    };
    let (from, to) = share(cols / panel, cx.core, n);
    if from == to {
        e.sync_in_order(acquire, &[(sem::chunk_full(b), 1)]);
        return;
    }
    let plane = p.rows * panel * element;
    let d = Dma {
        n0: panel * element / 16 - 1,
        n1: p.rows - 1,
        n2: to - from - 1,
        mst1: panel * element / 16,
        mst2: plane / 16,
        sst1: granule(cols * element),
        sst2: granule(panel * element),
        cmask: everyone(n),
        ..linear(
            0,
            cx.caps.misc_channel(),
            cx.h_region,
            offset + (k0 / panel + from) * plane,
            p.chunk[b as usize] + from * panel * element,
            16,
        )
    };
    e.push(acquire, &[(sem::chunk_full(b), 1)], cx.tag, Command::dma(d));
}

/// The head: logits of the last row, their maximum, and both to memory.
pub fn head_panel<S: Sink>(
    e: &mut Emitter<S>,
    cx: &Context,
    slots: &mut Slots,
    q: u64,
    at: u64,
    acquire: Option<Sem>,
    post: Option<Sem>,
) {
    let (m, p) = (cx.model, cx.plan);
    let matrix = m.lm_head();
    let job = Panel {
        matrix: &matrix,
        region: R_IMAGE,
        index: q,
        input: Input { at: p.a, stride: p.a_stride, k0: 0, cols: matrix.k, rows: 1 },
        scales: p.a_scale,
        acc: 0,
        keep: false,
        output: Some(Output { at, stride: m.h.panel * 4, format: FP32, ew: None, bias: None, act: 0 }),
        acquire,
        post,
    };
    panel(e, cx, slots, &job);
}
