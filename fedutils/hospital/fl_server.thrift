/**
 * What hospitals and their server say to each other, by Thrift's binary protocol in frames over mutual TLS.
 *
 * The weights of a model are one string of bytes: its layers one after another, in the order of get_model, each in
 * C order and little-endian. They travel in chunks of at most CHUNK_BYTES. A submission is begun, sent in chunks and
 * committed on one connection; it counts when it is committed, and not before. Whatever is refused is refused by
 * Refused, with the reason.
 */
namespace py fl_server

const i32 CHUNK_BYTES = 1048576

enum Reason {
  NOT_ALLOWED = 1        // only an operator may do this, or only a hospital
  NOT_YOURS = 2          // a hospital submits as itself: the name in its certificate
  STALE = 3              // the model has moved on from the version that this is about
  REPEATED = 4           // this hospital's weights were counted for this version already
  WRONG_LAYERS = 5       // another number of layers, or other names or order
  WRONG_SHAPE = 6
  WRONG_DTYPE = 7
  TOO_LARGE = 8          // more bytes than the model has, or than a chunk may have
  BAD_NUMBER = 9         // cases, offsets: missing or out of range
  WRONG_ORDER = 10       // a chunk or a commit that does not follow what came before
  INCOMPLETE = 11        // committed before all bytes had come
  WRONG_HASH = 12        // the bytes that came are not those that were sent
  NOT_FINITE = 13        // NaN or infinity among the weights
  TOO_FAR = 14           // further from the server's model than the limit
  TOO_LATE = 15          // the submission took longer than the limit
  TOO_OFTEN = 16         // more calls or submissions than the limit
  BUSY = 17              // no memory left for another submission: try again
  NOTHING_COLLECTED = 18 // no weights to aggregate
  CANNOT_STORE = 19      // the server's disk is full or failing: nothing was stored
  WITHDRAWN = 20         // this certificate is no longer good
}

exception Refused {
  1: Reason reason
  2: string message
}

struct Layer {
  1: string name
  2: string dtype       // float16, float32 or float64
  3: list<i64> shape
}

struct Model {
  1: i64 version        // how many times weights were aggregated
  2: list<Layer> layers
  3: i64 weights_bytes
  4: string weights_sha256
  5: i64 file_bytes     // the .keras file that holds the architecture
  6: string file_sha256
}

struct Receipt {
  1: i64 version        // that the submission was trained from
  2: i64 number_of_cases
  3: string sha256      // of the weights; empty where the hospital sent none for the version
}

service FLServer {
  // The server's model: get_model says what it is, the other two give a chunk of it from an offset.
  Model get_model() throws (1: Refused refused)
  binary get_weights_chunk(1: i64 version, 2: i64 offset) throws (1: Refused refused)
  binary get_file_chunk(1: i64 offset) throws (1: Refused refused)

  // A hospital's weights, trained from a version on a number of cases: begin, chunks in order, commit.
  void begin_submission(1: string hospital, 2: i64 version, 3: i64 number_of_cases, 4: list<Layer> layers)
      throws (1: Refused refused)
  void send_chunk(1: i64 offset, 2: binary data) throws (1: Refused refused)
  Receipt commit_submission(1: string sha256) throws (1: Refused refused)
  Receipt get_receipt(1: i64 version) throws (1: Refused refused)

  i64 number_weights_collected() throws (1: Refused refused)
  i64 version_number() throws (1: Refused refused)
  i64 update_weights() throws (1: Refused refused)  // operators only; the new version number
}
