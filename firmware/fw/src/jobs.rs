//! Jobs: a prompt in, tokens out.

use isa::memory_map::{error, mailbox};
use runtime::program::{Places, Unfit};
use runtime::{Model, Program, Sink, Step, draw};

use crate::console::line;
use crate::failure::give_up;
use crate::hardware::{JOBS, Shared};
use crate::interrupts;
use crate::npu::Cluster;
use crate::start::does_not_fit;

/// Most prompt rows of a chunk the token buffer holds.
pub const MOST_ROWS: usize = isa::boot::MOST_ROWS as usize;

struct Server<'a> {
    program: &'a mut Program,
    cluster: &'a mut Cluster,
    arena: &'a mut Shared,
    model: &'a Model,
    places: &'a Places,
}

/// Serves jobs for good.
pub fn serve(
    program: &mut Program,
    cluster: &mut Cluster,
    arena: &mut Shared,
    model: &Model,
    places: &Places,
) -> ! {
    // A prompt's last, shorter chunk replaces the chunk's plan: ask before the first job.
    let chunk = program.chunk_rows();
    let mut server = Server { program, cluster, arena, model, places };
    let mut tokens = [0; MOST_ROWS];
    loop {
        interrupts::wait_for_job();
        let ended = server.job(chunk, &mut tokens);
        if let Some(pages) = server.program.pages() {
            JOBS.store(mailbox::KV_USED, pages.used());
        }
        if ended.is_err() {
            JOBS.store(mailbox::REFUSED, error::NO_PAGES);
        }
        JOBS.store(mailbox::DONE, 1);
        interrupts::job_done();
    }
}

/// No page is left for a step; the console has the numbers.
struct NoPages;

impl Server<'_> {
    fn job(&mut self, chunk: u64, tokens: &mut [u32; MOST_ROWS]) -> Result<(), NoPages> {
        let (prompt, decode) = (JOBS.load(mailbox::PROMPT_LEN), JOBS.load(mailbox::DECODE_LEN));
        let context = JOBS.load(mailbox::CONTEXT);
        // The last token is not fed back.
        let positions = context.saturating_add(prompt).saturating_add(decode.saturating_sub(1));
        if positions > self.places.positions {
            line!("job: {positions} positions, but the cache was made for {}", self.places.positions);
            give_up(error::DOES_NOT_FIT);
        }
        if prompt == 0 {
            line!("job: no prompt, nothing to do");
            return Ok(());
        }
        JOBS.store(mailbox::PHASE, 1);
        if self.model.encoder() {
            return self.encode(prompt, tokens);
        }
        let candidates = self.candidates();
        let mut done = 0;
        while done < prompt {
            let rows = self.program.next_rows(prompt - done).min(chunk);
            for token in &mut tokens[..rows as usize] {
                *token = JOBS.load(mailbox::TOKEN_IN) as u32;
            }
            let sample = done + rows == prompt && decode > 0;
            self.step(&Step { start: context + done, rows, sample, candidates }, tokens)?;
            done += rows;
        }
        if decode == 0 {
            return Ok(());
        }
        self.token(candidates);
        JOBS.store(mailbox::PHASE, 2);
        let mut made = 1;
        while made < decode {
            // Whoever asked may have another token in mind, or enough.
            let next = JOBS.load(mailbox::NEXT);
            if next == mailbox::STOP {
                break;
            }
            tokens[0] = next as u32;
            let start = context + prompt + made - 1;
            self.step(&Step { start, rows: 1, sample: true, candidates }, tokens)?;
            self.token(candidates);
            made += 1;
        }
        line!("job: context {context}, prompt {prompt}, {made} tokens");
        Ok(())
    }

    /// A prompt's vector, or what an image's or a sound's rows become: all of them see each other.
    fn encode(&mut self, prompt: u64, tokens: &mut [u32; MOST_ROWS]) -> Result<(), NoPages> {
        let stem = self.model.stem();
        let most = if stem { u64::MAX } else { MOST_ROWS as u64 }.min(self.model.h.position_count);
        if prompt > most {
            line!("job: {prompt} rows at once, but there are positions and room for {most}");
            give_up(error::DOES_NOT_FIT);
        }
        // Rows of an input lie in memory: one read of the register takes the job.
        let told = if stem { 1 } else { prompt as usize };
        for token in &mut tokens[..told] {
            *token = JOBS.load(mailbox::TOKEN_IN) as u32;
        }
        self.step(&Step { start: 0, rows: prompt, sample: true, candidates: 0 }, tokens)?;
        JOBS.store(mailbox::EMBEDDING, self.places.bulk.0 + self.program.logits_offset());
        line!("job: {prompt} rows, one result");
        Ok(())
    }

    fn step(&mut self, step: &Step, tokens: &[u32]) -> Result<(), NoPages> {
        let mut token = |i: u64| u64::from(tokens[i as usize]);
        let top = match self.program.prepare(step, &mut token, self.arena) {
            Ok(top) if !self.arena.overflow => top,
            Err(Unfit::Pages) => return Err(self.no_pages(step)),
            Ok(_) => does_not_fit(Unfit::Arena, &self.cluster.caps, self.model, self.places),
            Err(why) => does_not_fit(why, &self.cluster.caps, self.model, self.places),
        };
        self.cluster.pass(&top, self.arena);
        Ok(())
    }

    fn no_pages(&self, step: &Step) -> NoPages {
        if let Some(pages) = self.program.pages() {
            let p = &pages.paging;
            line!(
                "job: position {} needs {} pages, the cache has {} for {} positions",
                step.start + step.rows - 1,
                p.pages_for(step.start + step.rows) * p.slab_pages(),
                p.total_pages(),
                (p.slabs << p.page_log2) / p.row
            );
        }
        NoPages
    }

    /// How many candidates the job's tokens are drawn from; leaves the other parameters for the NPU.
    fn candidates(&mut self) -> u64 {
        let candidates = JOBS.load(mailbox::CANDIDATES).min(draw::MOST);
        if candidates > 0 {
            self.cluster.check_draw();
            let (temperature, top_p) = (JOBS.load(mailbox::TEMPERATURE), JOBS.load(mailbox::TOP_P));
            let row = draw::parameters(temperature, top_p, candidates, JOBS.load(mailbox::SEED));
            self.arena.put(draw::parameters_offset() / 32, &row);
        }
        candidates
    }

    fn token(&self, candidates: u64) {
        let token = if candidates > 0 {
            Cluster::drawn(self.arena)
        } else {
            self.cluster.pick(self.model, self.arena)
        };
        JOBS.store(mailbox::TOKEN_OUT, token);
    }
}
