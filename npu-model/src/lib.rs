//! The NPU: sequencer, DMA, scratchpad, matrix and vector engines.
