def batches(split):
    import tensorflow as tf

    columns = {"user": tf.range(32, dtype=tf.int64), "click": tf.ones(32)}
    return tf.data.Dataset.from_tensor_slices(columns).batch(16)
