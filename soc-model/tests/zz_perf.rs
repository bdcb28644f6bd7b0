//! perf
use sim_kernel::{Bytes, Stream, Time};
use soc_model::dram::*;
#[test]
fn perf() {
  for (workers, size, il, grant) in [(12u64, 128u64<<10, 1024u64, 4096u64),(24, 128<<10, 1024, 4096),(24, 128<<10, 256, 16384), (6, 256<<10, 256, 4096)] {
    let cfg = DramConfig { standard: Standard::named("lpddr5x-9600").unwrap(), channels: 4, capacity: Bytes::new(16<<30), interleave_bytes: il, grant_bytes: grant,
        map: AddressMap::named_or_parsed("map-a").unwrap(), controller: Controller::PHONE, frequency_permille: 1000 };
    let mut m = MemorySystem::new(cfg, 1);
    let mut r = Stream::new(1, "a", "b");
    let start = std::time::Instant::now();
    let total = (3_900u64 << 20) / size;
    let mut started = 0; let mut calls = 0u64;
    let mut out = Vec::new();
    let mut now = Time::ZERO;
    for i in 0..workers { m.start_flow(now, &[(i * (300<<20), size)], false, Qos::Bulk, 57_000_000_000); started += 1; }
    while let Some(t) = m.next_completion() {
        now = t; out.clear(); m.finish_into(now, &mut out); calls += 1;
        for _ in 0..out.len() { if started < total { let base = r.below(3<<18) << 12; let w = started % 16 == 0; m.start_flow(now, &[(base, size)], w, Qos::Bulk, 57_000_000_000); started += 1; } }
    }
    println!("{workers} {size}: host {:?} flows {started} calls {calls} sim {} ns, {:.1} GB/s samples {} changes {} acts {}", start.elapsed(), now.as_ns(), (m.stats().npu.read_bytes+m.stats().npu.write_bytes) as f64 / now.as_ns() as f64, m.stats().samples, m.stats().load_changes, m.stats().activates);
    let start = std::time::Instant::now();
    let mut sum = 0;
    for i in 0..1_000_000u64 { let t = m.access_line(now + Time::from_ns(i*10), r.below(1<<26) << 6, i % 4 == 0); sum ^= t.get(); }
    println!("lines {:?} {sum} wait {}", start.elapsed(), m.stats().line_wait.as_ns());
  }
}
