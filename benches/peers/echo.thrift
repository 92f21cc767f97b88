namespace rs bench

// The interface of src/systems/volo.rs.
struct Payload {
    1: required binary bytes,
}

service Echo {
    Payload echo(1: Payload payload),
}
