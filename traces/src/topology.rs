//! Layer lists of SCALE-Sim: GEMM and convolution topologies, every layer as one matrix product.
//!
//! ```text
//!  Layer, M, N, K,                                                              C (M x N) = A (M x K) B (K x N)
//!  Layer name, IFMAP Height, .. Width, Filter Height, .. Width, Channels, Num Filter, Strides,    im2col:
//!     M = output pixels, K = filter height x width x channels, N = filters
//! ```
//!
//! Models: the header line, one or two stride columns, the optional sparsity column (1:1 only), depthwise layers.
//! Does not model: padding (the format has none), dilation, N:M sparsity.
//! Source: SCALE-Sim 3.0.0's topology reader: outputs are ceil((input - filter + stride) / stride); a layer with `DP`
//!   in its name is one layer a channel.

/// One matrix product.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Line of the file, from 1.
    pub line: usize,
    /// Name.
    pub name: String,
    /// Rows of A and C.
    pub m: u64,
    /// Columns of A, rows of B.
    pub k: u64,
    /// Columns of B and C.
    pub n: u64,
}

/// What is wrong with a topology file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {message}")]
pub struct TopologyError {
    /// File name as given.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in bytes, from 1.
    pub column: usize,
    /// What is wrong and what is expected.
    pub message: String,
}

/// Most layers of a file, depthwise channels counted.
const MOST_LAYERS: usize = 1 << 20;

/// What the columns after the name are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Gemm,
    /// With this many stride columns.
    Convolution(usize),
}

/// A field and the column it starts in.
#[derive(Clone, Copy)]
struct Field<'a> {
    text: &'a str,
    column: usize,
}

fn fields(line: &str) -> Vec<Field<'_>> {
    let mut out = Vec::new();
    let mut start = 0;
    for part in line.split(',') {
        let blank = part.len() - part.trim_start().len();
        out.push(Field { text: part.trim(), column: start + blank + 1 });
        start += part.len() + 1;
    }
    // Rows end with a comma.
    if out.last().is_some_and(|f| f.text.is_empty()) {
        out.pop();
    }
    out
}

/// Reads a topology of either kind; which one it is, the header says.
///
/// # Errors
/// Everything that is wrong, with file, line and column.
pub fn parse(file: &str, text: &str) -> Result<Vec<Layer>, Vec<TopologyError>> {
    let mut errors = Vec::new();
    let mut fail = |line: usize, (column, message): (usize, String)| {
        errors.push(TopologyError { file: file.to_owned(), line, column, message });
    };
    let mut lines = (1..).zip(text.lines()).filter(|(_, l)| !l.trim().is_empty());
    let kind = match lines.next() {
        None => Err((1, (1, "no layers; expected a header line, then Layer,M,N,K,".to_owned()))),
        Some((number, header)) => kind(&fields(header)).map_err(|e| (number, e)),
    };
    let kind = match kind {
        Ok(kind) => kind,
        Err((line, e)) => {
            fail(line, e);
            return Err(errors);
        }
    };
    let mut layers = Vec::new();
    for (number, line) in lines {
        match layer(kind, &fields(line), number, &mut layers) {
            Ok(()) => {}
            Err(e) => fail(number, e),
        }
        if layers.len() > MOST_LAYERS {
            fail(number, (1, format!("more than {MOST_LAYERS} layers")));
            break;
        }
    }
    if errors.is_empty() && layers.is_empty() {
        errors.push(TopologyError {
            file: file.to_owned(),
            line: 2,
            column: 1,
            message: "no layers after the header line".to_owned(),
        });
    }
    if errors.is_empty() { Ok(layers) } else { Err(errors) }
}

/// Reads the header.
fn kind(header: &[Field<'_>]) -> Result<Kind, (usize, String)> {
    let names: Vec<String> = header.iter().map(|f| f.text.to_ascii_lowercase()).collect();
    if names.get(1..4).is_some_and(|n| n == ["m", "n", "k"]) {
        return Ok(Kind::Gemm);
    }
    // Names of the six sizes vary; strides follow them in one column or two.
    let strides = names.iter().skip(7).take_while(|n| n.starts_with("stride")).count();
    if (1..=2).contains(&strides) && names[1].contains("height") {
        return Ok(Kind::Convolution(strides));
    }
    let column = header.get(1).map_or(1, |f| f.column);
    let expected = "expected the header Layer,M,N,K, or Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter \
                    Width, Channels, Num Filter, Strides,";
    Err((column, expected.to_owned()))
}

fn layer(kind: Kind, row: &[Field<'_>], line: usize, layers: &mut Vec<Layer>) -> Result<(), (usize, String)> {
    let (names, strides): (&[&str], usize) = match kind {
        Kind::Gemm => (&["M", "N", "K"], 0),
        Kind::Convolution(strides) => (
            &["IFMAP height", "IFMAP width", "filter height", "filter width", "channels", "num filter"],
            strides,
        ),
    };
    let needed = 1 + names.len() + strides;
    if row.len() < needed || row.len() > needed + 1 {
        let form = if kind == Kind::Gemm { "Layer,M,N,K," } else { "the columns of the header" };
        let column = row.last().map_or(1, |f| f.column);
        return Err((column, format!("expected {form}, found {} fields", row.len())));
    }
    if let Some(ratio) = row.get(needed)
        && ratio.text != "1:1"
    {
        return Err((ratio.column, format!("sparsity `{}` is not modelled; expected 1:1", ratio.text)));
    }
    let number = |index: usize| {
        let field = row[index];
        let name = names.get(index - 1).copied().unwrap_or("stride");
        match field.text.parse::<u64>() {
            Ok(0) => Err((field.column, format!("{name} is 0; expected at least 1"))),
            Ok(value) => Ok(value),
            Err(_) => Err((field.column, format!("{name}: expected a whole number, found `{}`", field.text))),
        }
    };
    let name = row[0].text.to_owned();
    if kind == Kind::Gemm {
        layers.push(Layer { line, name, m: number(1)?, n: number(2)?, k: number(3)? });
        return Ok(());
    }
    let (input_height, input_width) = (number(1)?, number(2)?);
    let (filter_height, filter_width) = (number(3)?, number(4)?);
    let (channels, filters) = (number(5)?, number(6)?);
    let (stride_height, stride_width) = (number(7)?, number(6 + strides)?);
    if filter_height > input_height {
        return Err((
            row[3].column,
            format!("filter height {filter_height} is above the input's {input_height}"),
        ));
    }
    if filter_width > input_width {
        return Err((
            row[4].column,
            format!("filter width {filter_width} is above the input's {input_width}"),
        ));
    }
    let outputs = |input: u64, filter: u64, stride: u64| (input - filter).div_ceil(stride) + 1;
    let m = outputs(input_height, filter_height, stride_height).checked_mul(outputs(
        input_width,
        filter_width,
        stride_width,
    ));
    let window = filter_height.checked_mul(filter_width);
    let depthwise = name.contains("DP");
    let k = window.and_then(|w| if depthwise { Some(w) } else { w.checked_mul(channels) });
    let (Some(m), Some(k)) = (m, k) else {
        return Err((row[1].column, "the layer's product is beyond 64 bits".to_owned()));
    };
    if !depthwise {
        layers.push(Layer { line, name, m, k, n: filters });
        return Ok(());
    }
    if channels > MOST_LAYERS as u64 {
        return Err((row[5].column, format!("more than {MOST_LAYERS} channels of a depthwise layer")));
    }
    for channel in 0..channels {
        layers.push(Layer { line, name: format!("{name}Channel_{channel}"), m, k, n: filters });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides,\n";

    fn one(text: &str) -> [u64; 3] {
        let layers = parse("t.csv", text).expect("valid");
        assert_eq!(layers.len(), 1);
        [layers[0].m, layers[0].k, layers[0].n]
    }

    fn errors(text: &str) -> String {
        let errors = parse("t.csv", text).expect_err("wrong");
        errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn both_kinds_and_all_headers_are_read() {
        assert_eq!(one("Layer,M,N,K,\na,128,64,32,\n"), [128, 32, 64]);
        assert_eq!(one("Layer, M, N, K\n\na, 1, 2, 3\n"), [1, 3, 2]);
        assert_eq!(one("Layer,M,N,K,Sparsity,\na,1,2,3,1:1,\n"), [1, 3, 2]);
        // ResNet's first layer: 112 x 112 outputs of 7 x 7 x 3 windows, 64 filters.
        assert_eq!(one(&format!("{HEADER}Conv1, 229, 229, 7, 7, 3, 64, 2,\n")), [112 * 112, 147, 64]);
        let two = HEADER.replace("Strides", "Stride height, Stride width");
        assert_eq!(one(&format!("{two}c, 9, 9, 3, 3, 4, 8, 2, 3,\n")), [4 * 3, 36, 8]);
        let sparse = HEADER.replace("Strides,", "Strides, Sparsity,");
        assert_eq!(one(&format!("{sparse}c, 9, 9, 3, 3, 4, 8, 2, 1:1,\n")), [16, 36, 8]);
        // A window that does not fit the last stride still counts, as in SCALE-Sim.
        assert_eq!(one(&format!("{HEADER}c, 10, 9, 3, 3, 1, 1, 2,\n")), [5 * 4, 9, 1]);
    }

    #[test]
    fn a_depthwise_layer_is_one_a_channel() {
        let layers = parse("t.csv", &format!("{HEADER}DP1, 8, 8, 3, 3, 4, 1, 1,\n")).expect("valid");
        assert_eq!(layers.len(), 4);
        assert_eq!(
            (layers[3].name.as_str(), layers[3].m, layers[3].k, layers[3].n),
            ("DP1Channel_3", 36, 9, 1)
        );
    }

    #[test]
    fn errors_name_line_and_column() {
        assert_eq!(
            errors("Layer,M,N,K,\na,1,2,x,\nb, 1,2\nc,0,1,1,\n"),
            "t.csv:2:7: K: expected a whole number, found `x`\nt.csv:3:6: expected Layer,M,N,K,, found 3 fields\n\
             t.csv:4:3: M is 0; expected at least 1"
        );
        assert!(errors("").contains("t.csv:1:1: no layers"));
        assert!(errors("Layer,M,N,K,\n").contains("no layers after the header"));
        assert!(errors("a,1,2,3\n").starts_with("t.csv:1:3: expected the header"));
        assert_eq!(
            errors(&format!("{HEADER}c, 3, 9, 4, 3, 1, 1, 1,\n")),
            "t.csv:2:10: filter height 4 is above the input's 3"
        );
        assert!(errors("Layer,M,N,K,S,\na,1,2,3,2:4,\n").contains("2:9: sparsity `2:4` is not modelled"));
        let huge = u64::MAX;
        assert!(errors(&format!("{HEADER}c, {huge}, {huge}, 1, 1, 1, 1, 1,\n")).contains("beyond 64 bits"));
        assert!(errors(&format!("{HEADER}DP, 9, 9, 1, 1, {huge}, 1, 1,\n")).contains("channels"));
    }
}
