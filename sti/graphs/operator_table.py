"""The operators that writers of packs use, by ``python -m tests.tools.graph_operators``.

Each with the element types of its inputs and its output, and its attributes with the values they
have; ``?=`` where there is a default. Read by ``sti.graphs.operators``.
"""

VERSIONS = frozenset({8})
"""Of the format of graphs."""

OPSETS = {"": frozenset({18}), "com.microsoft": frozenset({1})}
"""Versions of the operators, by domain."""

TABLE = """
Abs
F32 -> F32

Add
F32 F32 -> F32

com.microsoft BiasGelu
F32 F32 -> F32

Cast
F16 -> F32
to = 1

Concat
F32 F32 -> F32
axis = 0 or 1

CumSum
F32 I64 -> F32

Div
F32 F32 -> F32

com.microsoft FastGelu
F32 -> F32
F32 F32 -> F32

Flatten
F32 -> F32
axis = 1 or 2

com.microsoft FusedMatMul
F32 F32 -> F32
transB ?= 1
transBatchA ?= 1
transBatchB = 1

Gather
F32 I64 -> F32
axis = 0 or 1 or 2

com.microsoft Gelu
F32 -> F32

Identity
F32 -> F32

LayerNormalization
F32 F32 F32 -> F32
axis = -1
epsilon = 0 to 1

MatMul
F32 F32 -> F32

com.microsoft MatMulIntegerToFloat
U8 I8 F32 F32 U8 I8 -> F32
U8 U8 F32 F32 U8 U8 -> F32

Max
F32 F32 -> F32

Mul
F32 F32 -> F32

QuantizeLinear
F32 F32 U8 -> U8
axis ?= 0

com.microsoft QuickGelu
F32 -> F32
alpha = 0 to 1

ReduceL2
F32 I64 -> F32
keepdims = 1

ReduceMax
F32 I64 -> F32
keepdims = 0 or 1

ReduceSum
F32 I64 -> F32
keepdims = 1

Relu
F32 -> F32

Reshape
F32 I64 -> F32
U8 I64 -> U8

Shape
F32 -> I64
end ?= 2
start ?= 1

Slice
F16 I64 I64 I64 -> F16
F32 I64 I64 I64 -> F32

Softmax
F32 -> F32
axis = -1

Sqrt
F32 -> F32

Squeeze
F32 I64 -> F32

Tanh
F32 -> F32

Transpose
F32 -> F32
perm = [1 0 2] or [1 0] or [2 0 1 3]

Unsqueeze
F32 I64 -> F32
"""
