//! The contract between software and silicon: instruction and command tables, registers, image layouts.
