# GSFM: ResNet-50 on frames, ResNet-18 on frames with masks.
model = dict(
    type="GSFM",
    pretrained=dict(key_encoder="pretrained/resnet50-19c8e357.pth", value_encoder="pretrained/resnet18-5c106cde.pth"),
    bootstrap=dict(start_warm=3000, end_warm=15000),
    boundary_weight=0.05,
    test_cfg=dict(mem_every=3, top_k=50, include_last=False),
)
